//! What threads can do to a load shedder: `RUSTFLAGS="--cfg resilience_loom" cargo test --release --test 'loom*'`.
#![cfg(resilience_loom)]

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;
use resilience_core::{LoadShedder, Priority};

fn shedder(max_concurrent: u32) -> LoadShedder {
    LoadShedder::builder("model").max_concurrent(max_concurrent).build().unwrap()
}

#[test]
fn the_last_place_is_given_once_and_comes_back() {
    loom::model(|| {
        let shedder = shedder(1);
        let inside = Arc::new(AtomicU32::new(0));
        let visit = |shedder: LoadShedder, inside: Arc<AtomicU32>| {
            move || {
                if let Ok(_permit) = shedder.try_acquire(Priority::Normal) {
                    // Relaxed: the permits alone must order these, or else a 1 of long ago may be read.
                    assert_eq!(inside.load(Ordering::Relaxed), 0, "two are inside");
                    inside.store(1, Ordering::Relaxed);
                    inside.store(0, Ordering::Relaxed);
                }
            }
        };
        let other = thread::spawn(visit(shedder.clone(), Arc::clone(&inside)));
        visit(shedder.clone(), inside)();
        other.join().unwrap();
        assert_eq!(shedder.statistics().in_flight, 0);
        assert!(shedder.try_acquire(Priority::Normal).is_ok());
    });
}

#[test]
fn a_lower_priority_never_takes_the_room_of_a_higher_one() {
    loom::model(|| {
        // Background sees one of four, low two, everyone above all four.
        let shedder = shedder(4);
        let enter = |shedder: LoadShedder, priority| move || shedder.try_acquire_owned(priority).ok();
        let background = thread::spawn(enter(shedder.clone(), Priority::Background));
        let low = thread::spawn(enter(shedder.clone(), Priority::Low));
        let first = shedder.try_acquire(Priority::Critical).expect("at most two others are inside");
        let second = shedder.try_acquire(Priority::Critical).expect("at most two others are inside");
        let lower = [background.join().unwrap(), low.join().unwrap()];
        assert!(shedder.statistics().in_flight <= 4);
        assert!(shedder.try_acquire(Priority::Low).is_err());
        drop((first, second, lower));
        assert_eq!(shedder.statistics().in_flight, 0);
    });
}

/// Whoever looks while everything is changed never finds a lower priority let in and then a higher one refused.
fn ordered_while(before: f64, after: f64) {
    loom::model(move || {
        let shedder = shedder(1);
        shedder.set_pressure(before).unwrap();
        let theirs = shedder.clone();
        let other = thread::spawn(move || theirs.set_pressure(after).unwrap());
        // Pressure falls: once the lowest is let in, the highest must be. Pressure rises: once the highest is refused,
        // the lowest must be.
        if after < before {
            if shedder.try_acquire(Priority::Background).is_ok() {
                assert!(shedder.try_acquire(Priority::Critical).is_ok());
            }
        } else if shedder.try_acquire(Priority::Critical).is_err() {
            assert!(shedder.try_acquire(Priority::Background).is_err());
        }
        other.join().unwrap();
    });
}

#[test]
fn limits_rise_from_the_most_important_down() {
    ordered_while(1.0, 0.0);
}

#[test]
fn limits_fall_from_the_least_important_up() {
    ordered_while(0.0, 1.0);
}
