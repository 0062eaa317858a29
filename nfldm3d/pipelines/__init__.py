"""The trained parts working together: encoding, judging, generating."""
