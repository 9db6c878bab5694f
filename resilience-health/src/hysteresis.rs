//! Turns a stream of results into a status that does not flicker: n results in a row before it changes.
//! Told results, answers with a status; knows nothing of time.

use crate::status::Status;

/// How many results in a row it takes to change the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Thresholds {
    /// Unhealthy results until unhealthy.
    pub(crate) fail: u32,
    /// Worse results until a healthy check is degraded.
    pub(crate) degrade: u32,
    /// Better results until the status improves.
    pub(crate) recover: u32,
}

/// The status of one check and how far it is from changing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hysteresis {
    status: Status,
    /// Unhealthy results in a row.
    unhealthy: u32,
    /// Results in a row that were worse than the status.
    worse: u32,
    /// Results in a row that were better than the status, and the worst among them.
    better: u32,
    worst_better: Status,
}

impl Hysteresis {
    pub(crate) const fn new() -> Self {
        Self { status: Status::Unknown, unhealthy: 0, worse: 0, better: 0, worst_better: Status::Healthy }
    }

    pub(crate) const fn status(&self) -> Status {
        self.status
    }

    /// Forgets everything: the next result decides alone.
    pub(crate) fn forget(&mut self) {
        *self = Self::new();
    }

    /// Takes one result. [`Status::Unknown`] is no evidence and changes nothing.
    pub(crate) fn record(&mut self, sample: Status, thresholds: Thresholds) -> Status {
        if sample == Status::Unknown {
            return self.status;
        }
        self.unhealthy = if sample == Status::Unhealthy { self.unhealthy.saturating_add(1) } else { 0 };
        if self.status == Status::Unknown {
            // Nothing is known yet: waiting for more of the same would only keep it unknown for longer.
            self.change(sample);
            return self.status;
        }
        if sample.rank() > self.status.rank() {
            self.worse = self.worse.saturating_add(1);
        } else {
            self.worse = 0;
        }
        if sample.rank() < self.status.rank() {
            let before = if self.better == 0 { Status::Healthy } else { self.worst_better };
            self.worst_better = before.worst(sample);
            self.better = self.better.saturating_add(1);
        } else {
            self.better = 0;
        }
        if self.status != Status::Unhealthy && self.unhealthy >= thresholds.fail {
            self.change(Status::Unhealthy);
        } else if self.status == Status::Healthy && self.worse >= thresholds.degrade {
            self.change(Status::Degraded);
        } else if self.better >= thresholds.recover {
            self.change(self.worst_better);
        }
        self.status
    }

    /// The run of unhealthy results survives a change, so that healthy → degraded → unhealthy takes `fail`
    /// failures in all and not one threshold after the other.
    fn change(&mut self, status: Status) {
        self.status = status;
        self.worse = 0;
        self.better = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Status::{Degraded, Healthy, Unhealthy, Unknown};
    use proptest::prelude::*;

    const THRESHOLDS: Thresholds = Thresholds { fail: 3, degrade: 1, recover: 2 };

    fn statuses(samples: &[Status], thresholds: Thresholds) -> Vec<Status> {
        let mut hysteresis = Hysteresis::new();
        samples.iter().map(|sample| hysteresis.record(*sample, thresholds)).collect()
    }

    #[test]
    fn three_failures_go_by_degraded_to_unhealthy_and_two_successes_come_back() {
        assert_eq!(
            statuses(&[Healthy, Unhealthy, Unhealthy, Unhealthy, Healthy, Healthy], THRESHOLDS),
            [Healthy, Degraded, Degraded, Unhealthy, Unhealthy, Healthy]
        );
    }

    #[test]
    fn a_single_failure_among_successes_never_makes_it_unhealthy() {
        assert_eq!(
            statuses(&[Healthy, Unhealthy, Healthy, Healthy, Unhealthy, Healthy, Healthy], THRESHOLDS),
            [Healthy, Degraded, Degraded, Healthy, Degraded, Degraded, Healthy]
        );
    }

    #[test]
    fn the_first_result_decides_alone_because_unknown_is_not_fine() {
        assert_eq!(statuses(&[Unknown, Unhealthy], THRESHOLDS), [Unknown, Unhealthy]);
        assert_eq!(statuses(&[Degraded], THRESHOLDS), [Degraded]);
    }

    #[test]
    fn recovery_reaches_only_the_worst_of_the_results_that_made_it() {
        assert_eq!(statuses(&[Unhealthy, Healthy, Degraded], THRESHOLDS), [Unhealthy, Unhealthy, Degraded]);
    }

    /// The same rules, said again over the whole list of results since the status last changed.
    fn naive(samples: &[Status], t: Thresholds) -> Vec<Status> {
        let mut status = Unknown;
        let mut since_change: Vec<Status> = Vec::new();
        let mut all: Vec<Status> = Vec::new();
        let mut seen = Vec::new();
        for sample in samples.iter().copied() {
            if sample != Unknown {
                all.push(sample);
                since_change.push(sample);
                let tail = |list: &[Status], f: &dyn Fn(Status) -> bool| -> Vec<Status> {
                    list.iter().rev().copied().take_while(|s| f(*s)).collect()
                };
                let unhealthy = tail(&all, &|s| s == Unhealthy).len();
                let worse = tail(&since_change, &|s| s.rank() > status.rank()).len();
                let better = tail(&since_change, &|s| s.rank() < status.rank());
                let next = if status == Unknown {
                    sample
                } else if unhealthy >= t.fail as usize {
                    Unhealthy
                } else if status == Healthy && worse >= t.degrade as usize {
                    Degraded
                } else if better.len() >= t.recover as usize {
                    better.iter().copied().fold(Healthy, Status::worst)
                } else {
                    status
                };
                if next != status {
                    status = next;
                    since_change.clear();
                }
            }
            seen.push(status);
        }
        seen
    }

    proptest! {
        #[test]
        fn it_agrees_with_the_rules_applied_to_the_whole_list(
            samples in prop::collection::vec(prop::sample::select(vec![Healthy, Degraded, Unhealthy, Unknown]), 0..60),
            fail in 1u32..5, degrade in 1u32..5, recover in 1u32..5,
        ) {
            let thresholds = Thresholds { fail, degrade, recover };
            prop_assert_eq!(statuses(&samples, thresholds), naive(&samples, thresholds));
        }
    }
}
