//! resilience-audit
