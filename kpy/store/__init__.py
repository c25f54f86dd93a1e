"""What is kept on disk: an OCI image layout and what goes with it. Knows nothing of builds."""
