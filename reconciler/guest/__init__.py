"""What runs in a virtual machine, the way to it, and a small virtual machine to run it in."""
