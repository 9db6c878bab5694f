//! The load shedder through its public interface.
#![cfg(not(resilience_loom))]

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::thread;

use proptest::prelude::*;
#[cfg(feature = "serde")]
use resilience_core::load_shedder::LoadShedderStatistics;
use resilience_core::load_shedder::{LoadShedderBuilder, Permit};
use resilience_core::{Classify, ErrorKind, Event, LoadShedder, Observers, Priority, Reason};

fn shedder(max_concurrent: u32) -> LoadShedder {
    LoadShedder::builder("s").max_concurrent(max_concurrent).build().unwrap()
}

/// How many of each priority, least important first, could be let in one after the other.
fn room(shedder: &LoadShedder) -> [usize; 5] {
    Priority::ALL.map(|priority| {
        let permits: Vec<_> = std::iter::from_fn(|| shedder.try_acquire(priority).ok()).collect();
        permits.len()
    })
}

#[test]
fn each_priority_may_use_its_share_and_the_last_room_is_for_what_is_critical() {
    assert_eq!(room(&shedder(100)), [25, 50, 80, 95, 100]);
    // Rounded up: who has a share gets in when nobody else is there.
    assert_eq!(room(&shedder(1)), [1, 1, 1, 1, 1]);
    assert_eq!(room(&shedder(3)), [1, 2, 3, 3, 3]);
    // Whole numbers throughout: 0.29 x 100 is 28.999999999999996 in floating point, and 0.07 x 100 is above 7.
    let exact = LoadShedder::builder("s").share(Priority::Background, 0.07).share(Priority::Low, 0.29);
    assert_eq!(room(&exact.build().unwrap())[..2], [7, 29]);
}

#[test]
fn calls_of_all_priorities_fill_one_count() {
    let shedder = shedder(4);
    let critical: Vec<_> = (0..2).map(|_| shedder.try_acquire(Priority::Critical).unwrap()).collect();
    assert!(shedder.try_acquire(Priority::Background).is_err());
    assert!(shedder.try_acquire(Priority::Low).is_err());
    let normal = shedder.try_acquire(Priority::Normal).unwrap();
    drop(critical);
    assert!(shedder.try_acquire(Priority::Background).is_err(), "one is still in flight");
    drop(normal);
    assert!(shedder.try_acquire(Priority::Background).is_ok());
}

#[test]
fn pressure_takes_capacity_away_and_critical_calls_feel_it_last() {
    let shedder = shedder(100);
    let under = |pressure| {
        shedder.set_pressure(pressure).unwrap();
        room(&shedder)
    };
    assert_eq!(under(0.1), [15, 40, 70, 85, 90]);
    assert_eq!(under(0.25), [0, 25, 55, 70, 75]);
    assert_eq!(under(0.5), [0, 0, 30, 45, 50]);
    assert_eq!(under(0.95), [0, 0, 0, 0, 5]);
    assert_eq!(under(1.0), [0, 0, 0, 0, 0]);
    assert_eq!(under(0.0), [25, 50, 80, 95, 100]);
}

#[test]
fn a_share_of_nothing_lets_nobody_in() {
    let shedder = LoadShedder::builder("s").share(Priority::Background, 0.0).build().unwrap();
    assert_eq!(room(&shedder), [0, 50, 80, 95, 100]);
}

#[test]
fn a_permit_comes_back_once_however_it_is_owned_and_whatever_ends_it() {
    let shedder = shedder(1);
    drop(shedder.try_acquire(Priority::Low).unwrap());
    drop(shedder.try_acquire_owned(Priority::Low).unwrap());
    drop(shedder.try_acquire(Priority::Low).unwrap().into_owned());
    drop(shedder.try_acquire_owned(Priority::Low).unwrap().into_owned());
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _ = shedder.call(Priority::Low, || -> Result<(), ()> { panic!("on purpose") });
    }));
    assert!(panicked.is_err());
    {
        let mut cancelled = pin!(shedder.call_async(Priority::Low, std::future::pending::<Result<(), ()>>()));
        assert!(cancelled.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(shedder.statistics().in_flight, 1);
    }
    let owned = shedder.try_acquire_owned(Priority::Low).unwrap();
    thread::spawn(move || drop(owned)).join().unwrap();
    assert_eq!(shedder.statistics().in_flight, 0);
    assert_eq!(shedder.statistics().of(Priority::Low).admitted, 7);
    assert!(shedder.try_acquire(Priority::Low).is_ok());
}

#[test]
fn calls_carry_results_errors_and_refusals_to_the_caller() {
    let shedder = shedder(1);
    assert_eq!(shedder.call(Priority::Low, || Ok::<_, &str>(1)), Ok(1));
    let failed = shedder.call(Priority::Low, || Err::<(), _>("no such key")).unwrap_err();
    assert_eq!((failed.as_operation(), failed.attempts), (Some(&"no such key"), 1));
    let nested = shedder.call(Priority::Low, || {
        let refused = shedder.call(Priority::Critical, || -> Result<(), &str> { panic!("must not run") });
        Ok::<_, &str>(refused.unwrap_err())
    });
    let refused = nested.unwrap();
    let ErrorKind::Rejected(rejection) = &refused.kind else { panic!("{refused:?}") };
    assert_eq!((rejection.reason, refused.attempts), (Reason::Shed { priority: Priority::Critical }, 0));
    assert_eq!(rejection.reason.as_str(), "shed");
    assert!(!rejection.class().retryable, "a retry would add load where there is too much");
}

#[test]
fn new_settings_hold_at_once_and_what_was_counted_stays() {
    let shedder = shedder(10);
    shedder.set_pressure(0.5).unwrap();
    let permits: Vec<_> = (0..4).map(|_| shedder.try_acquire(Priority::Critical).unwrap()).collect();
    assert!(shedder.try_acquire(Priority::Low).is_err());
    let clone = shedder.clone();
    clone.reconfigure(LoadShedder::builder("other").max_concurrent(4).share(Priority::High, 1.0)).unwrap();
    let statistics = shedder.statistics();
    assert_eq!((statistics.in_flight, statistics.max_concurrent, shedder.name()), (4, 4, "s"));
    assert!((statistics.pressure - 0.5).abs() < 1e-9, "the pressure is not a setting");
    assert_eq!(statistics.of(Priority::High).limit, 2);
    assert_eq!((statistics.of(Priority::Critical).admitted, statistics.of(Priority::Low).rejected), (4, 1));
    // Two of the four must go, and one more, before somebody comes in.
    let mut permits = permits.into_iter();
    for _ in 0..3 {
        assert!(shedder.try_acquire(Priority::Critical).is_err());
        permits.next();
    }
    assert!(shedder.try_acquire(Priority::Critical).is_ok());
    let refused = shedder.reconfigure(LoadShedder::builder("s").max_concurrent(0)).unwrap_err();
    assert_eq!((refused.field.as_str(), shedder.statistics().max_concurrent), ("s.max_concurrent", 4));
}

#[test]
fn observers_hear_of_refusals_and_may_ask_the_shedder_back() {
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let asked: Arc<Mutex<Option<LoadShedder>>> = Arc::default();
    let (sink, ask) = (Arc::clone(&heard), Arc::clone(&asked));
    let observers = Observers::new().with(Arc::new(move |event: &Event<'_>| {
        let Event::Rejected { rejection, .. } = event else { return };
        let rejected = ask.lock().unwrap().as_ref().map_or(0, |s| s.statistics().of(Priority::Low).rejected);
        sink.lock().unwrap().push(format!("{rejection} ({rejected} refused)"));
    }));
    let shedder = LoadShedder::builder("s").max_concurrent(1).observers(observers).build().unwrap();
    *asked.lock().unwrap() = Some(shedder.clone());
    let _permit = shedder.try_acquire(Priority::Normal).unwrap();
    assert!(shedder.try_acquire(Priority::Low).is_err());
    assert!(shedder.try_acquire(Priority::Low).is_err());
    insta::assert_snapshot!(heard.lock().unwrap().join("\n"), @r"
    load shedder `s` has no room for low calls (1 refused)
    load shedder `s` has no room for low calls (2 refused)
    ");
}

#[test]
fn values_that_cannot_be_used_are_refused() {
    let of = |builder: LoadShedderBuilder| builder.build().unwrap_err().to_string();
    let new = || LoadShedder::builder("s");
    insta::assert_snapshot!(of(new().max_concurrent(0)), @"`s.max_concurrent` is 0; allowed: 1 to 4294967295");
    insta::assert_snapshot!(of(new().share(Priority::Low, -0.1)), @"`s.share.low` is -0.1; allowed: 0 to 1");
    insta::assert_snapshot!(of(new().share(Priority::High, f64::NAN)), @"`s.share.high` is NaN; allowed: 0 to 1");
    insta::assert_snapshot!(of(new().share(Priority::Normal, f64::INFINITY)), @"`s.share.normal` is inf; allowed: 0 to 1");
    insta::assert_snapshot!(of(new().share(Priority::High, 0.7)), @"`s.share.normal` is 0.8; allowed: at most 0.7, the share of high");
    insta::assert_snapshot!(of(new().share(Priority::Critical, 0.99)), @"`s.share.critical` is 0.99; allowed: 1; what is critical may use everything");
    insta::assert_snapshot!(of(LoadShedder::builder("")), @r#"`name` is ""; allowed: 1 to 128 of A-Z a-z 0-9 _ - . : /"#);
    let shedder = new().build().unwrap();
    for pressure in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
        let refused = shedder.set_pressure(pressure).unwrap_err();
        assert_eq!((refused.field.as_str(), refused.allowed.as_str()), ("s.pressure", "0 to 1"));
    }
    assert_eq!(room(&shedder), [25, 50, 80, 95, 100]);
}

#[cfg(feature = "serde")]
#[test]
fn priorities_and_figures_have_the_same_names_in_serde() {
    for priority in Priority::ALL {
        assert_eq!(serde_json::to_value(priority).unwrap(), priority.as_str());
    }
    let statistics = shedder(8).statistics();
    let json = serde_json::to_value(&statistics).unwrap();
    insta::assert_snapshot!(json["priorities"][1], @r#"{"admitted":0,"limit":4,"priority":"low","rejected":0}"#);
    assert_eq!(serde_json::from_value::<LoadShedderStatistics>(json).unwrap(), statistics);
}

#[derive(Debug, Clone)]
enum Step {
    Enter(usize),
    Leave(usize),
    Pressure(u32),
    Reconfigure { max: u32, percents: [u32; 4] },
}

fn percents() -> impl Strategy<Value = [u32; 4]> {
    proptest::array::uniform4(0_u32..=100).prop_map(|mut percents| {
        percents.sort_unstable();
        percents
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0_usize..5).prop_map(Step::Enter),
        3 => any::<usize>().prop_map(Step::Leave),
        1 => (0_u32..=100).prop_map(Step::Pressure),
        1 => (1_u32..12, percents()).prop_map(|(max, percents)| Step::Reconfigure { max, percents }),
    ];
    proptest::collection::vec(step, 1..200)
}

fn with(max: u32, percents: [u32; 4]) -> LoadShedderBuilder {
    let shares = Priority::ALL.into_iter().zip(percents);
    shares.fold(LoadShedder::builder("s").max_concurrent(max), |builder, (priority, percent)| {
        builder.share(priority, f64::from(percent) / 100.0)
    })
}

proptest! {
    /// Whoever comes or leaves, whatever is changed: the shedder answers as a naive one does that counts in per cent.
    #[test]
    fn it_agrees_with_a_naive_count(max in 1_u32..12, shares in percents(), steps in steps()) {
        let shedder = with(max, shares).build().unwrap();
        let (mut max, mut shares, mut pressure) = (max, shares, 0);
        let mut permits: Vec<Permit<'_>> = Vec::new();
        let (mut admitted, mut rejected) = ([0_u64; 5], [0_u64; 5]);
        for step in steps {
            match step {
                Step::Enter(index) => {
                    let share = shares.get(index).copied().unwrap_or(100);
                    // Whoever comes takes the call's place below the share that is left, counted in hundredths of a call.
                    let room = permits.len() * 100 < (max * share.saturating_sub(pressure)) as usize;
                    match shedder.try_acquire(Priority::ALL[index]) {
                        Ok(permit) => { prop_assert!(room); permits.push(permit); admitted[index] += 1; }
                        Err(refused) => {
                            prop_assert!(!room);
                            prop_assert_eq!(refused.reason, Reason::Shed { priority: Priority::ALL[index] });
                            rejected[index] += 1;
                        }
                    }
                }
                Step::Leave(pick) if !permits.is_empty() => drop(permits.swap_remove(pick % permits.len())),
                Step::Leave(_) => {}
                Step::Pressure(percent) => {
                    shedder.set_pressure(f64::from(percent) / 100.0).unwrap();
                    pressure = percent;
                }
                Step::Reconfigure { max: new, percents } => {
                    shedder.reconfigure(with(new, percents)).unwrap();
                    (max, shares) = (new, percents);
                }
            }
            let statistics = shedder.statistics();
            prop_assert_eq!((statistics.in_flight as usize, statistics.max_concurrent), (permits.len(), max));
            prop_assert_eq!(statistics.priorities.map(|of| of.admitted), admitted);
            prop_assert_eq!(statistics.priorities.map(|of| of.rejected), rejected);
            prop_assert!(statistics.priorities.map(|of| of.limit).is_sorted());
        }
        drop(permits);
        prop_assert_eq!(shedder.statistics().in_flight, 0);
    }

    #[test]
    fn building_never_panics(max in any::<u32>(), shares in proptest::array::uniform5(any::<f64>()), pressure in any::<f64>()) {
        let builder = Priority::ALL.into_iter().zip(shares).fold(LoadShedder::builder("s").max_concurrent(max), |builder, (priority, share)| {
            builder.share(priority, share)
        });
        drop(builder.build());
        let valid = (0.0..=1.0).contains(&pressure);
        prop_assert_eq!(shedder(5).set_pressure(pressure).is_ok(), valid);
    }
}

#[test]
fn many_threads_never_pass_the_limit_and_every_permit_comes_back() {
    const MAX: u32 = 3;
    let shedder = shedder(MAX);
    let inside = AtomicU32::new(0);
    thread::scope(|scope| {
        for seed in 0..6 {
            let (shedder, inside) = (&shedder, &inside);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                for _ in 0..3_000 {
                    let priority = Priority::ALL[random.usize(0..5)];
                    let _ = shedder.call(priority, || {
                        assert!(inside.fetch_add(1, Ordering::SeqCst) < MAX, "too many are inside");
                        thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                        Ok::<_, ()>(())
                    });
                }
            });
        }
    });
    let statistics = shedder.statistics();
    assert_eq!(statistics.in_flight, 0);
    let calls: u64 = statistics.priorities.iter().map(|of| of.admitted + of.rejected).sum();
    assert_eq!(calls, 18_000);
    assert_eq!(room(&shedder), [1, 2, 3, 3, 3]);
}
