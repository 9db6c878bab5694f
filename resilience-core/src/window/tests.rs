use proptest::prelude::*;

use super::time::SLICES;
use super::*;

fn sum(samples: impl Iterator<Item = Sample>) -> Counts {
    let mut counts = Counts::default();
    for sample in samples {
        counts.calls += 1;
        counts.failed += u64::from(sample.failed);
        counts.slow += u64::from(sample.slow);
    }
    counts
}

fn samples() -> impl Strategy<Value = Vec<(bool, bool, u64)>> {
    // Gaps from nothing over slice edges to idle times far beyond the window.
    let gap = prop_oneof![Just(0), 1_u64..50, 90_u64..110, 1_500_u64..1_700, Just(1_000_000)];
    proptest::collection::vec((any::<bool>(), any::<bool>(), gap), 1..300)
}

/// Counts one call. Good ones are only counted, as the breaker does it.
fn record(window: &mut Window, position: u64, sample: Sample, now: Instant) -> Counts {
    window.advance(position - 1, now);
    if sample != Sample::default() {
        window.record(position, sample);
    }
    window.counts(position, now)
}

proptest! {
    #[test]
    fn a_count_window_equals_the_sum_of_the_last_n(calls in samples(), size in 1_u32..40) {
        let mut window = Window::last_calls(size);
        let mut all = Vec::new();
        for (failed, slow, _) in calls {
            let sample = Sample { failed, slow };
            all.push(sample);
            let naive = sum(all.iter().rev().take(size as usize).copied());
            prop_assert_eq!(record(&mut window, all.len() as u64, sample, Instant::default()), naive);
        }
    }

    #[test]
    fn a_count_window_that_is_resized_holds_the_last_calls_that_both_sizes_held(
        calls in samples(), sizes in proptest::collection::vec(1_u32..40, 1..6)
    ) {
        let mut window = Window::last_calls(sizes[0]);
        // What the model holds: never more than the smallest window since.
        let (mut all, mut held) = (Vec::new(), 0);
        let mut size = sizes[0] as usize;
        for (call, (failed, slow, _)) in calls.into_iter().enumerate() {
            if call % 17 == 16 {
                size = sizes[call % sizes.len()] as usize;
                held = held.min(size);
                let mut resized = Window::last_calls(size as u32);
                resized.inherit(Some(window), all.len() as u64, Instant::default());
                window = resized;
                prop_assert_eq!(window.counts(all.len() as u64, Instant::default()), sum(all.iter().rev().take(held).copied()));
            }
            let sample = Sample { failed, slow };
            all.push(sample);
            held = (held + 1).min(size);
            let naive = sum(all.iter().rev().take(held).copied());
            prop_assert_eq!(record(&mut window, all.len() as u64, sample, Instant::default()), naive);
        }
    }

    #[test]
    fn a_time_window_equals_the_sum_of_its_sixteen_slices(calls in samples()) {
        let mut window = Window::last_span(Duration::from_nanos(1_600));
        let mut all: Vec<(u64, Sample)> = Vec::new();
        let mut now = 5_000;
        for (failed, slow, gap) in calls {
            now += gap;
            let inside = |all: &[(u64, Sample)]| {
                sum(all.iter().filter(|(at, _)| at / 100 + SLICES as u64 > now / 100).map(|(_, sample)| *sample))
            };
            // Looking at it changes nothing.
            prop_assert_eq!(window.counts(all.len() as u64, Instant::from_nanos(now)), inside(&all));
            let sample = Sample { failed, slow };
            all.push((now, sample));
            prop_assert_eq!(record(&mut window, all.len() as u64, sample, Instant::from_nanos(now)), inside(&all));
        }
    }

    #[test]
    fn a_refilled_window_holds_what_it_was_given_or_its_share_of_it(
        size in 1_u32..200, calls in 0_u64..1_000_000_000, failed in 0.0..=1.0, slow in 0.0..=1.0
    ) {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let part = |share: f64| (calls as f64 * share) as u64;
        let counts = Counts { calls, failed: part(failed), slow: part(slow) };
        let mut time = Window::last_span(Duration::from_secs(1));
        let now = Instant::from_nanos(7_000_000_000);
        let position = time.refill(counts, now);
        prop_assert_eq!(time.counts(position, now), counts);
        let mut window = Window::last_calls(size);
        let position = window.refill(counts, now);
        let held = window.counts(position, now);
        if calls <= u64::from(size) {
            prop_assert_eq!(held, counts);
        } else {
            prop_assert_eq!(held.calls, u64::from(size));
            for (held, given) in [(held.failed, counts.failed), (held.slow, counts.slow)] {
                let exact = given as f64 * f64::from(size) / calls as f64;
                prop_assert!(held as f64 >= exact - 1e-6 && held as f64 <= exact + 1.0 + 1e-6, "{} of {}", held, exact);
            }
        }
    }
}
