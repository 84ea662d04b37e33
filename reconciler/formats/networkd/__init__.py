"""The .network and .netdev files of systemd-networkd, with their drop-ins (systemd.network(5), systemd.netdev(5))."""
