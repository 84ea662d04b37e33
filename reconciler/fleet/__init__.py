"""Many hosts from one repository: desired state, statuses and rollouts, kept in etcd."""
