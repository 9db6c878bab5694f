//! That the core builds for the browser, and that without and with all its features nothing in it warns there.

use std::time::Duration;

use super::{cargo, rustup};
use crate::Stop;
use crate::steps::{Bench, Verdict};
use crate::workspace::Workspace;

pub(super) const PACKAGE: &str = "resilience-core";
const TARGET: &str = "wasm32-unknown-unknown";
/// A cold build of the core and its dependencies on two cores takes a fraction of this.
const LIMIT: Duration = Duration::from_secs(15 * 60);

pub(super) fn build(workspace: &Workspace, bench: &mut Bench<'_>) -> Result<Verdict, Stop> {
    let list = ["target", "list", "--installed"];
    let find = |list: &str| list.lines().any(|line| line == TARGET).then(|| TARGET.to_owned());
    let target = match rustup::ensure(workspace, bench, &list, &["target", "add", TARGET], find)? {
        Ok(target) => target,
        Err(verdict) => return Ok(verdict),
    };
    for features in ["--no-default-features", "--all-features"] {
        let arguments = ["clippy", "--package", PACKAGE, "--target", &target, features, "--", "-D", "warnings"];
        let ended = bench.run(&mut cargo(workspace, &arguments), LIMIT)?;
        if !ended.success() {
            return Ok(Verdict::failed(format!("{features}: {ended}")));
        }
    }
    Ok(Verdict::passed("without and with all features"))
}
