//! resilience-core
