//! Measures `resilience-core` beside its peers, doing the same work in the same run. Driven by `cargo xtask bench`, which
//! also judges and shows the figures; this crate only measures, and says so when a case doesn't do what it should.

mod case;
pub mod footprint;
pub mod growth;
mod ours;
mod peers;
pub mod rows;
pub mod threads;
pub mod timing;
mod yardsticks;

pub use case::{Case, Failed, Prepared, prepare};

/// Every case that was built in: ours, the yardsticks, and those of the peers whose features are on.
pub fn cases() -> Vec<Case> {
    let mut cases = ours::cases();
    cases.extend(peers::cases());
    cases.extend(yardsticks::cases());
    cases
}
