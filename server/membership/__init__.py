"""The membership of sites: invitations, registrations, renewals and removals."""
