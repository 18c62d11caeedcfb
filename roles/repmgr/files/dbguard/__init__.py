"""dbguard: makes repmgr's failover safe, and brings a returned node back. See the role's README."""
