//! What a probe costs: reading the answer, with 10 and 1 000 checks, idle and while a check hangs.
//! The figure must not depend on any of that.

use std::hint::black_box;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use resilience_health::{CheckSpec, HealthMonitor, local};

fn monitor(checks: usize) -> HealthMonitor {
    let mut builder = HealthMonitor::builder();
    for n in 0..checks {
        builder = builder.check(CheckSpec::readiness(format!("check-{n}"), || ()).interval(Duration::from_secs(3600)));
    }
    let monitor = builder.build().expect("a valid monitor");
    monitor.tick();
    monitor
}

fn probes(c: &mut Criterion) {
    for checks in [10, 1000] {
        let monitor = monitor(checks);
        c.bench_function(&format!("live, {checks} checks"), |b| b.iter(|| black_box(monitor.live().pass)));
        c.bench_function(&format!("ready, {checks} checks"), |b| b.iter(|| black_box(monitor.ready().pass)));
    }

    let (begun_sender, begun) = channel();
    let (release, released) = channel::<()>();
    let held = Arc::new(Mutex::new(released));
    let check = local(move || {
        let _ = begun_sender.send(());
        let _ = held.lock().map(|held| held.recv());
    });
    let monitor = HealthMonitor::builder()
        .workers(1)
        .check(
            CheckSpec::liveness("hangs", check).interval(Duration::from_secs(3600)).timeout(Duration::from_secs(3600)),
        )
        .build()
        .expect("a valid monitor");
    let background = monitor.start().expect("threads");
    begun.recv().expect("the check runs");
    c.bench_function("live, while a check hangs", |b| b.iter(|| black_box(monitor.live().pass)));
    drop((background, release));
}

criterion_group!(benches, probes);
criterion_main!(benches);
