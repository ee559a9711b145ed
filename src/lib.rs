//! DriftGuard: hash-pinned configuration for Kubernetes.
