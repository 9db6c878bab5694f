#![doc = include_str!("../README.md")]
//!
//! # How the crate is built
//! A policy is a state machine that never sleeps, spawns or does I/O: it is told the time and answers with a
//! decision. Thin shells turn decisions into behaviour, blocking ([`Pipeline::call`]) or async
//! ([`Pipeline::call_async`]), over the same state. This crate knows nothing of health checks, audit logs or
//! guards: it emits [`Event`]s, they listen.

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod bulkhead;
pub mod chaos;
pub mod circuit_breaker;
pub mod class;
pub mod clock;
pub mod coalesce;
pub mod config;
pub mod context;
pub mod deadline;
pub mod event;
pub mod fallback;
pub mod hedge;
pub mod load_shedder;
pub mod outcome;
pub mod pipeline;
pub mod rate_limiter;
pub mod registry;
pub mod retry;
pub mod timeout;
#[cfg(feature = "tower")]
pub mod tower;

#[cfg(feature = "tower")]
mod ready_call;
mod sync;
mod timers;
mod wait;
mod window;

pub use bulkhead::Bulkhead;
pub use chaos::Chaos;
pub use circuit_breaker::{BreakerState, CircuitBreaker};
pub use class::{Category, Class, Classify, Severity};
pub use clock::{Clock, Instant, ManualClock};
pub use coalesce::Coalesce;
pub use config::ConfigError;
pub use context::{ErrorContext, ErrorId};
pub use deadline::Deadline;
pub use event::{Event, Observer, Observers};
pub use fallback::{Fallback, FallbackError};
pub use hedge::Hedge;
pub use load_shedder::{LoadShedder, Priority};
pub use outcome::{Error, ErrorKind, Outcome, Reason, Rejection, Stopped, TimedOut};
pub use pipeline::{Attempt, CallOptions, Idempotency, Pipeline};
pub use rate_limiter::{KeyedRateLimiter, RateLimiter};
pub use registry::Registry;
pub use retry::{Backoff, Jitter, Retry, RetryBudget, Retryable};
pub use timeout::{Background, Timeout};
