//! The registry stage: a real HTTP registry that refuses, stalls, errs, throttles, truncates and corrupts, and a client
//! that goes on. Every byte that comes through is compared with what was published.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use parsercraft_guard::registry::{Checksum, Lookup, RegistryError, RegistryGuard};
use parsercraft_guard::testkit::registry::{Fault, PublishedRelease, Scope};
use resilience_core::{BreakerState, ErrorKind};
use resilience_health::Status;

use super::Guard;
use super::guarded::{Bench, Trouble, wait_until};
use super::line::{Findings, Stage};

const STAGE: Stage = Stage::Registry;

/// What was fetched, and how it went.
#[derive(Default)]
struct Ledger {
    /// Bytes that are not the published ones.
    wrong: u32,
    fetched: u32,
    outcomes: BTreeMap<&'static str, u32>,
    /// When, and how long it took in milliseconds.
    timeline: Vec<(f64, f64)>,
}

struct Client<'a> {
    bench: &'a Bench,
    guard: &'a RegistryGuard,
    ledger: Ledger,
    begun: Instant,
}

impl Client<'_> {
    /// Fetches one release: its metadata, then its file. What comes through is compared; the outcome's name is returned.
    fn fetch(&mut self, release: &PublishedRelease) -> &'static str {
        let sent = Instant::now();
        let outcome = self.fetch_quietly(release);
        let (at, took) = (self.begun.elapsed().as_secs_f64(), sent.elapsed().as_secs_f64() * 1e3);
        self.ledger.timeline.push((at, took));
        *self.ledger.outcomes.entry(outcome).or_default() += 1;
        outcome
    }

    fn fetch_quietly(&mut self, release: &PublishedRelease) -> &'static str {
        if self.bench.is_broken(Guard::Registry) {
            return match unguarded(self.bench, release) {
                Ok(bytes) => self.compare(&bytes, release, "unguarded"),
                Err(_) => "network",
            };
        }
        let download = async {
            let requirement = format!("={}", release.version);
            let found = self.guard.resolve(&release.name, &requirement).await?;
            let file = self.guard.download(&found.id).await?;
            Ok::<_, parsercraft_guard::registry::GuardError>((found.served.as_str(), file))
        };
        match self.bench.runtime.block_on(download) {
            Ok((served, file)) => match file.read() {
                Ok(bytes) => self.compare(&bytes, release, served),
                Err(_) => "unreadable",
            },
            Err(error) => match error.kind {
                ErrorKind::Operation(RegistryError::ChecksumMismatch { .. }) => "checksum mismatch",
                ErrorKind::Operation(_) => "error",
                ErrorKind::Rejected(_) => "rejected",
                ErrorKind::TimedOut(_) => "timed out",
                _ => "other",
            },
        }
    }

    fn compare(&mut self, bytes: &[u8], release: &PublishedRelease, served: &'static str) -> &'static str {
        self.ledger.fetched += 1;
        if *bytes == *release.bytes {
            return served;
        }
        self.ledger.wrong += 1;
        "WRONG BYTES"
    }

    /// Waits until the registry works and the breaker is closed, by asking as a build would.
    fn recover(&mut self, what: &str) -> Result<bool, Trouble> {
        let (bench, guard) = (self.bench, self.guard);
        bench.registry.set_fault(Fault::None)?;
        let closed = wait_until(|| {
            let _ = bench.runtime.block_on(guard.probe());
            guard.breaker().state() == BreakerState::Closed
        });
        if closed {
            bench.recovered(STAGE, what)?;
        }
        Ok(closed)
    }
}

pub(super) fn run(bench: &Bench) -> Result<Findings, Trouble> {
    let mut findings = Findings::default();
    let guard = bench.toolchain.registry().ok_or("no registry guard")?;
    let catalog = bench.registry.catalog();
    let releases: Vec<_> = catalog.releases().iter().filter(|release| !release.yanked).cloned().collect();
    let faults = Fault::all();
    let total = 3 + faults.len();
    let mut client = Client { bench, guard, ledger: Ledger::default(), begun: Instant::now() };
    let (known, rest) = releases.split_at_checked(20).ok_or("the catalog is too small")?;
    let known: Vec<_> = known.iter().collect();
    // What a life before a kill has fetched is in the cache and would never be asked for.
    let absent = |release: &&PublishedRelease| {
        !matches!(guard.cache().artifact(&Checksum::of(&release.bytes)), Ok(Lookup::Hit(_)))
    };
    let mut left = rest.iter().filter(absent);

    // The second release of a crate finds its metadata known, and has it confirmed.
    let answered = known.iter().filter(|release| is_answer(client.fetch(release))).count();
    findings.check(answered == known.len(), "a registry that works answers everything", format!("{answered} of 20"));
    bench.progress(STAGE, 1, total);

    outage(bench, &mut client, &known, &mut left, &mut findings)?;
    bench.progress(STAGE, 2, total);

    let mut amiss = Vec::new();
    for (number, fault) in faults.into_iter().enumerate() {
        let step = Instant::now();
        bench.fault(STAGE, fault.as_str())?;
        let corrupt = fault == Fault::Corrupt;
        // Corruption of the index is a parse error; the case that matters is a package file that looks right.
        let scope = if corrupt { Scope::Packages } else { Scope::All };
        bench.registry.set_fault_for(scope, fault.clone())?;
        let (old, new) = (known[number % known.len()], left.next().ok_or("the catalog is too small")?);
        let met = || bench.registry.stats().by_fault.get(fault.as_str()).copied().unwrap_or(0);
        let before = met();
        client.fetch(old);
        let outcome = client.fetch(new);
        // A closed port sees no requests to count.
        if (met() == before && fault != Fault::Refuse) || is_answer(outcome) {
            amiss.push(format!("`{}`: {outcome}, {} requests met it", fault.as_str(), met() - before));
        }
        if corrupt {
            findings.check(outcome == "checksum mismatch", "corrupted bytes are a checksum mismatch", outcome);
        }
        let closed = client.recover(fault.as_str())?;
        let after = client.fetch(new);
        let well = closed && is_answer(after);
        let found = format!("{after}, {:.1} s after the fault began", step.elapsed().as_secs_f64());
        findings.check(well, format!("after `{}` the same package is fetched", fault.as_str()), found);
        bench.progress(STAGE, 3 + number, total);
    }
    findings.check(
        amiss.is_empty(),
        "every kind of fault met the client, and none passed for an answer",
        if amiss.is_empty() { "all of them".to_owned() } else { amiss.join("; ") },
    );
    retry_after(bench, &mut client, left.next().ok_or("the catalog is too small")?, &mut findings)?;

    let statistics = guard.statistics();
    let ledger = client.ledger;
    findings.check(
        ledger.fetched > 30 && ledger.wrong == 0,
        "every byte that came through is the published one",
        format!("{} files, {} with wrong bytes", ledger.fetched, ledger.wrong),
    );
    findings.check(
        statistics.checksum_mismatches >= 1 && statistics.stale >= 1,
        "mismatches were caught and stale answers served",
        format!("{} mismatches, {} stale answers", statistics.checksum_mismatches, statistics.stale),
    );
    let outcomes: Vec<_> = ledger.outcomes.iter().map(|(name, count)| format!("{name} {count}")).collect();
    findings.figure("fetches by outcome", outcomes.join(", "));
    findings.figure("requests the registry saw", bench.registry.stats().requests);
    findings.series.insert("fetch_ms".into(), ledger.timeline);
    bench.progress(STAGE, total, total);
    Ok(findings)
}

/// Whether the registry itself stands behind what came.
fn is_answer(outcome: &str) -> bool {
    matches!(outcome, "fresh" | "revalidated" | "cached" | "unguarded")
}

/// The registry is gone: known packages still come, the breaker opens, health says degraded; then all is well again.
fn outage<'r>(
    bench: &Bench,
    client: &mut Client<'_>,
    known: &[&PublishedRelease],
    left: &mut impl Iterator<Item = &'r PublishedRelease>,
    findings: &mut Findings,
) -> Result<(), Trouble> {
    bench.fault(STAGE, "outage")?;
    bench.registry.set_fault(Fault::Refuse)?;
    let unknown = client.fetch(left.next().ok_or("the catalog is too small")?);
    findings.check(
        matches!(unknown, "error" | "rejected" | "network"),
        "a package never seen fails with a typed error",
        unknown,
    );
    let stale = known.iter().filter(|release| client.fetch(release) == "stale").count();
    findings.check(stale == known.len(), "every known package is served stale", format!("{stale} of {}", known.len()));
    let opened = wait_until(|| {
        let _ = bench.runtime.block_on(client.guard.probe());
        client.guard.breaker().state() == BreakerState::Open
    });
    findings.check(opened, "the breaker opens", client.guard.breaker().state());
    let health = bench.toolchain.health();
    let degraded = !bench.is_broken(Guard::Health) && wait_until(|| health.status() == Status::Degraded);
    findings.check(degraded, "health is degraded during the outage", health.status());
    let ready = health.ready().pass;
    findings.check(ready, "the process stays ready: it still serves", ready);
    let closed = client.recover("outage")?;
    findings.check(closed, "the breaker closes when the registry is back", client.guard.breaker().state());
    Ok(())
}

/// 429 with `Retry-After: 1` on the first answer: the client waits that long, no less, and then has it.
fn retry_after(
    bench: &Bench,
    client: &mut Client<'_>,
    release: &PublishedRelease,
    findings: &mut Findings,
) -> Result<(), Trouble> {
    bench.fault(STAGE, "429 with Retry-After: 1, once")?;
    bench.registry.set_schedule(Scope::Index, vec![(Fault::TooManyRequests { retry_after: 1 }, 1)])?;
    let sent = Instant::now();
    let outcome = client.fetch(release);
    let waited = sent.elapsed();
    findings.check(
        is_answer(outcome) && waited >= Duration::from_secs(1),
        "a `Retry-After` of 1 s is honoured",
        format!("{outcome} after {:.2} s", waited.as_secs_f64()),
    );
    client.recover("429 with Retry-After: 1, once")?;
    Ok(())
}

/// What a build without a guard does: takes the bytes as they come.
fn unguarded(bench: &Bench, release: &PublishedRelease) -> Result<Vec<u8>, Trouble> {
    let mut stream = std::net::TcpStream::connect_timeout(&bench.registry.addr(), Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let path = format!("/dl/{}/{}/download", release.name, release.version);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", bench.registry.addr())?;
    // Without a limit on the whole, a registry that drips would hold it for an hour; the drill has not got one.
    let (mut answer, mut part, begun) = (Vec::new(), [0; 16 << 10], Instant::now());
    loop {
        match stream.read(&mut part)? {
            0 => break,
            _ if begun.elapsed() > Duration::from_secs(2) || answer.len() > 1 << 20 => return Err("gave up".into()),
            read => answer.extend_from_slice(&part[..read]),
        }
    }
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or("no answer")? + 4;
    if !answer.starts_with(b"HTTP/1.1 200") {
        return Err("not served".into());
    }
    Ok(answer.split_off(end))
}
