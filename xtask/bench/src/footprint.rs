//! What objects take in memory: one of each, and what each key of a keyed limiter adds. Counted by `count`, which owns the
//! allocator; an object is boxed here, so that its own size is part of the figure.

use std::any::Any;

use crate::{ours, peers};

/// Something whose memory is counted.
#[derive(Debug, Clone, Copy)]
pub struct Footprint {
    /// What it is.
    pub what: &'static str,
    /// Whose it is.
    pub who: &'static str,
    /// The memory is of so many.
    pub of: u64,
    /// Makes it.
    pub make: fn() -> Box<dyn Any>,
}

/// Keys of the keyed limiters.
const KEYS: u64 = 100_000;
/// Breakers of the registry.
const BREAKERS: u64 = 10_000;

/// The name of a breaker in a registry.
pub(crate) fn breaker_name(number: u64) -> String {
    format!("backend-{number:05}")
}

const fn one(what: &'static str, who: &'static str, make: fn() -> Box<dyn Any>) -> Footprint {
    Footprint { what, who, of: 1, make }
}

/// Everything whose memory is counted.
pub fn all() -> Vec<Footprint> {
    use resilience_core::{CircuitBreaker, Registry, Retry};
    const BREAKER: &str = "breaker, window of 100 calls";
    const LIMITER: &str = "limiter";
    const KEY: &str = "limiter by key, each of 100 000 numbers";
    const STRING_KEY: &str = "limiter by key, each of 100 000 strings";
    const ROOM: &str = "bulkhead";
    let mut all = vec![
        one(BREAKER, ours::WHO, || Box::new(ours::counting(100))),
        one("breaker, failures in a row", ours::WHO, || Box::new(CircuitBreaker::builder("row").build().unwrap())),
        one(LIMITER, ours::WHO, || Box::new(ours::plenty())),
        one(ROOM, ours::WHO, || Box::new(ours::room())),
        one(ROOM, "tokio semaphore", || Box::new(tokio::sync::Semaphore::new(64))),
        one("retry", ours::WHO, || Box::new(Retry::default())),
        one("pipeline of five, with its policies", ours::WHO, || Box::new(ours::five())),
        one("limiter by key, without keys", ours::WHO, || Box::new(ours::keyed::<u64>(1 << 16))),
        Footprint {
            what: KEY,
            who: ours::WHO,
            of: KEYS,
            make: || {
                let limiter = ours::keyed::<u64>(1 << 17);
                assert!((0..KEYS).all(|key| limiter.try_acquire(&key, 1).is_ok()));
                Box::new(limiter)
            },
        },
        Footprint {
            what: STRING_KEY,
            who: ours::WHO,
            of: KEYS,
            make: || {
                let limiter = ours::keyed::<String>(1 << 17);
                assert!((0..KEYS).all(|key| limiter.try_acquire(format!("tenant-{key}").as_str(), 1).is_ok()));
                Box::new(limiter)
            },
        },
        Footprint {
            what: "breaker in a registry of 10 000, window of 100 calls",
            who: ours::WHO,
            of: BREAKERS,
            make: || {
                let registry = Registry::default().max_policies(10_000);
                for number in 0..BREAKERS {
                    registry.breaker(&breaker_name(number), |breaker| breaker.failure_rate(0.5, 100, 10)).unwrap();
                }
                Box::new(registry)
            },
        },
    ];
    #[cfg(feature = "recloser")]
    all.push(one(BREAKER, "recloser", || Box::new(peers::recloser::counting(100))));
    #[cfg(feature = "failsafe")]
    all.push(one("breaker, failures in a row", "failsafe", || Box::new(peers::failsafe::in_a_row())));
    #[cfg(feature = "circuitbreaker-rs")]
    all.push(one("breaker, failures in a row", "circuitbreaker-rs", || Box::new(peers::circuitbreaker_rs::breaker())));
    #[cfg(feature = "ratelimit")]
    all.push(one(LIMITER, "ratelimit", || Box::new(peers::ratelimit::plenty())));
    #[cfg(feature = "leaky-bucket")]
    all.push(one(LIMITER, "leaky-bucket", || Box::new(peers::leaky_bucket::plenty())));
    #[cfg(feature = "governor")]
    {
        all.push(one(LIMITER, "governor", || Box::new(peers::governor::direct())));
        all.push(one("limiter by key, without keys", "governor", || Box::new(peers::governor::keyed::<u64>())));
        all.push(Footprint {
            what: KEY,
            who: "governor",
            of: KEYS,
            make: || {
                let limiter = peers::governor::keyed::<u64>();
                assert!((0..KEYS).all(|key| limiter.check_key(&key).is_ok()));
                Box::new(limiter)
            },
        });
        all.push(Footprint {
            what: STRING_KEY,
            who: "governor",
            of: KEYS,
            make: || {
                let limiter = peers::governor::keyed::<String>();
                assert!((0..KEYS).all(|key| limiter.check_key(&format!("tenant-{key}")).is_ok()));
                Box::new(limiter)
            },
        });
    }
    #[cfg(feature = "throttlecrab")]
    all.push(Footprint {
        what: STRING_KEY,
        who: "throttlecrab",
        of: KEYS,
        make: || {
            let limiter = peers::throttlecrab::limiter();
            let ask = |key| peers::throttlecrab::ask(&limiter, &format!("tenant-{key}"), 1_000_000, 1, 1);
            assert!((0..KEYS).all(ask));
            Box::new(limiter)
        },
    });
    all
}
