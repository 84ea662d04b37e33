"""What a sandbox is: immutable, canonical values without I/O, the same for desired and observed."""
