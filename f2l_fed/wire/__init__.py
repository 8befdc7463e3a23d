"""The wire protocol: messages between server and sites, their records, and enrolment."""
