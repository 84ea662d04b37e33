"""The JSON of `kata-runtime kata-network`, read and written, and the words of `kata-ipvs cleanup`."""
