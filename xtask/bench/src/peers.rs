//! The peers, one module each, called as their own documentation shows. One that can't be built is left out by its
//! feature, and `cargo xtask bench` says so.

use crate::case::Case;

macro_rules! peers {
    ($($feature:literal => $name:ident),* $(,)?) => {
        $(#[cfg(feature = $feature)] pub(crate) mod $name;)*

        pub(crate) fn cases() -> Vec<Case> {
            let mut cases = Vec::new();
            $(#[cfg(feature = $feature)] cases.extend($name::cases());)*
            cases
        }
    };
}

peers! {
    "recloser" => recloser,
    "failsafe" => failsafe,
    "circuit_breaker" => circuit_breaker,
    "circuitbreaker-rs" => circuitbreaker_rs,
    "governor" => governor,
    "ratelimit" => ratelimit,
    "throttlecrab" => throttlecrab,
    "leaky-bucket" => leaky_bucket,
    "backon" => backon,
    "tower-resilience" => tower_resilience,
}
