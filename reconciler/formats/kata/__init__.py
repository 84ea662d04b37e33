"""What `kata-runtime kata-network` and `kata-ipvs cleanup` take and print, both ways."""
