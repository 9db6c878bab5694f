//! What watching costs: 1 000 checks, one a second each, for ten seconds (or as many as the first argument says).
//! Prints the processor time and memory that this process used for it. Reads `/proc`, so it runs on Linux.

use std::error::Error;
use std::fs;
use std::time::Duration;

use resilience_health::{CheckSpec, HealthMonitor};

fn main() -> Result<(), Box<dyn Error>> {
    let seconds: u64 = std::env::args().nth(1).map_or(Ok(10), |argument| argument.parse())?;
    let before = resident_kib()?;
    let mut builder = HealthMonitor::builder();
    for n in 0..1000 {
        let spec = CheckSpec::readiness(format!("check-{n}"), || Ok::<(), String>(()));
        builder = builder.check(spec.interval(Duration::from_secs(1)));
    }
    let monitor = builder.build()?;
    let background = monitor.start()?;
    std::thread::sleep(Duration::from_secs(2)); // histories fill while it starts up
    let start = processor_ticks()?;
    std::thread::sleep(Duration::from_secs(seconds));
    // A tick is a hundredth of a second on every Linux that Rust supports.
    let used = Duration::from_millis((processor_ticks()? - start) * 10);
    println!("status {}", monitor.status());
    println!("{:.2} % of a core", used.as_secs_f64() * 100.0 / seconds as f64);
    println!("{} KiB of memory", resident_kib()?.saturating_sub(before));
    drop(background);
    Ok(())
}

/// User and system time of this process.
fn processor_ticks() -> Result<u64, Box<dyn Error>> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}

fn resident_kib() -> Result<u64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
    Ok(line.split_whitespace().nth(1).unwrap_or_default().parse()?)
}
