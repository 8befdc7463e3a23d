"""The quarantine of submissions that admission neither accepts nor rejects."""
