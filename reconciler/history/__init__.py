"""What changed in sandboxes, when, why and by whom: JSON lines below /var/lib/reconciler, bounded, for root only."""
