//! resilience-health
