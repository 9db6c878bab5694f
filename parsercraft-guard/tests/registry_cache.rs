//! The registry guard and its cache: what is kept, for how long, and what is served when the registry is gone.

#![cfg(feature = "testkit")]

mod registry_bench;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parsercraft_guard::registry::{Checksum, LockFile, RegistryError, Served};
use parsercraft_guard::testkit::registry::{Fault, PublishedRelease, Scope};
use registry_bench::{Bench, id};
use resilience_core::{BreakerState, Classify as _, ManualClock, Retry, Severity};

/// Every byte of every file below a folder.
fn everything_below(folder: &Path) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { everything_below(&path) } else { vec![std::fs::read(path).unwrap()] })
        .collect()
}

#[tokio::test]
async fn a_healthy_registry_serves_every_release_with_the_right_bytes() {
    let bench = Bench::new();
    let guard = bench.guard();
    let catalog = bench.registry.catalog();
    assert!(catalog.names().len() >= 48);
    for name in catalog.names() {
        let newest = guard.resolve(name, "*").await;
        for release in catalog.releases().iter().filter(|release| release.name == name) {
            let id = id(&guard, release).await.unwrap();
            let artifact = guard.download(&id).await.unwrap();
            assert_eq!(artifact.read().unwrap(), &release.bytes[..]);
        }
        let expected = catalog
            .releases()
            .iter()
            .filter(|release| release.name == name && !release.yanked)
            .map(|release| release.version.parse::<semver::Version>().unwrap())
            .filter(|version| version.pre.is_empty())
            .max();
        assert_eq!(newest.ok().map(|newest| newest.value.id.version), expected, "{name}");
    }
    let statistics = guard.statistics();
    assert_eq!((statistics.failed, statistics.stale), (0, 0));
    assert_eq!(bench.registry.stats().by_fault.keys().copied().collect::<Vec<_>>(), ["none"]);
}

#[tokio::test]
async fn answers_are_reused_while_fresh_then_confirmed_and_changes_are_seen() {
    let bench = Bench::new();
    let time = ManualClock::new();
    // Ages come from the wall time of this clock; nothing waits on it while the registry is well.
    let guard = bench.builder().clock(time.clock()).build().unwrap();
    bench.registry.set_cache_control("public, max-age=600");
    let name = bench.name();
    let served = async || guard.metadata(&name).await.unwrap().served;
    assert_eq!(served().await, Served::Fresh);
    assert_eq!(served().await, Served::Cached);
    time.advance(Duration::from_secs(599));
    assert_eq!(served().await, Served::Cached);
    assert_eq!(bench.registry.stats().path(&bench.index_path()), 1);
    time.advance(Duration::from_secs(1));
    assert_eq!(served().await, Served::Revalidated);
    assert_eq!(served().await, Served::Cached);
    assert_eq!((bench.registry.stats().path(&bench.index_path()), bench.registry.stats().not_modified), (2, 1));
    bench.registry.publish(PublishedRelease::new(&name, "99.0.0", b"new"));
    assert_ne!(guard.resolve(&name, "*").await.unwrap().id.version.major, 99);
    time.advance(Duration::from_secs(600));
    let newest = guard.resolve(&name, "*").await.unwrap();
    assert_eq!((newest.id.version.major, newest.served), (99, Served::Fresh));
    let statistics = guard.statistics();
    assert_eq!((statistics.fresh, statistics.cached, statistics.revalidated), (2, 4, 1));
}

#[tokio::test]
async fn corrupted_bytes_are_never_served_nor_cached() {
    let bench = Bench::new();
    let (guard, release) = (bench.guard(), bench.release());
    let wanted = id(&guard, &release).await.unwrap();
    bench.registry.set_fault_for(Scope::Packages, Fault::Corrupt).unwrap();
    for _ in 0..3 {
        let error = guard.download(&wanted).await.unwrap_err();
        let Some(RegistryError::ChecksumMismatch { expected, actual, .. }) = error.as_operation() else {
            panic!("{error}")
        };
        assert_eq!((*expected, error.attempts), (release.checksum(), 1));
        assert_ne!(actual, expected);
        assert_eq!(error.class().severity, Severity::Critical);
        // A new guard on the same cache finds nothing of it either.
        let stored = everything_below(bench.folder.path());
        assert!(stored.iter().all(|bytes| Checksum::of(bytes) != *actual && Checksum::of(bytes) != *expected));
    }
    assert_eq!(guard.statistics().checksum_mismatches, 3);
    assert_eq!(bench.saw("checksum_mismatch critical"), 3);

    bench.registry.set_fault(Fault::None).unwrap();
    let artifact = guard.download(&wanted).await.unwrap();
    assert_eq!((artifact.read().unwrap(), &artifact.served), (release.bytes.to_vec(), &Served::Fresh));
}

#[tokio::test]
async fn what_may_not_be_kept_is_not_kept_and_what_must_be_confirmed_is_never_served_stale() {
    for (directives, files) in [("no-store", 1), ("max-age=0, must-revalidate", 2), ("no-cache", 2)] {
        let bench = Bench::new();
        let guard = bench.guard();
        // Stored while it was allowed: the new directives hold for that too.
        guard.probe().await.unwrap();
        guard.metadata(&bench.name()).await.unwrap();
        bench.registry.set_cache_control(directives);
        guard.metadata(&bench.name()).await.unwrap();
        assert_eq!(everything_below(bench.folder.path()).len(), files, "{directives}");
        bench.registry.set_fault(Fault::Refuse).unwrap();
        assert!(guard.metadata(&bench.name()).await.is_err(), "{directives}");
        assert!(guard.probe().await.unwrap().is_stale(), "{directives}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_guards_on_one_cache_do_not_disturb_each_other() {
    let bench = Bench::new();
    let guards = [bench.guard(), bench.guard()];
    let catalog = Arc::new(bench.registry.catalog());
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let (guard, catalog) = (guards[task % 2].clone(), Arc::clone(&catalog));
            tokio::spawn(async move {
                for release in catalog.releases().iter().take(40) {
                    let wanted = id(&guard, release).await.unwrap();
                    assert_eq!(guard.download(&wanted).await.unwrap().read().unwrap(), &release.bytes[..]);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(guards.map(|guard| guard.statistics().corrupt_entries), [0, 0]);
}

#[tokio::test]
async fn verified_files_are_served_when_the_registry_is_gone() {
    let bench = Bench::new();
    let (guard, release) = (bench.guard(), bench.release());
    let wanted = id(&guard, &release).await.unwrap();
    guard.download(&wanted).await.unwrap();
    bench.registry.set_fault(Fault::Refuse).unwrap();

    let restarted = bench.guard();
    let resolved = restarted.resolve(&release.name, &format!("={}", release.version)).await.unwrap();
    assert!(resolved.served.is_stale());
    let artifact = restarted.download(&resolved.id).await.unwrap();
    assert_eq!((artifact.read().unwrap(), &artifact.served), (release.bytes.to_vec(), &Served::Cached));
}

#[tokio::test]
async fn bit_rot_in_the_cache_is_noticed_and_fetched_again() {
    let bench = Bench::new();
    let (guard, release) = (bench.guard(), bench.release());
    let wanted = id(&guard, &release).await.unwrap();
    let path = guard.download(&wanted).await.unwrap().path().to_owned();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100] ^= 0x40;
    std::fs::write(&path, bytes).unwrap();
    let artifact = guard.download(&wanted).await.unwrap();
    assert_eq!((artifact.read().unwrap(), &artifact.served), (release.bytes.to_vec(), &Served::Fresh));
    assert_eq!(guard.statistics().corrupt_entries, 1);
    assert_eq!(bench.saw("cache_entry_corrupt high"), 1);
}

#[tokio::test]
async fn answers_too_old_are_not_served_in_place_of_new_ones() {
    let bench = Bench::new();
    let time = ManualClock::new();
    let guard = bench
        .builder()
        .clock(time.clock())
        .retry(Retry::builder().max_attempts(1).build().unwrap())
        .max_stale(Duration::from_secs(3600))
        .build()
        .unwrap();
    let name = bench.name();
    guard.metadata(&name).await.unwrap();
    bench.registry.set_fault(Fault::ServerError).unwrap();
    time.advance(Duration::from_secs(3600));
    let Served::Stale { age, .. } = guard.metadata(&name).await.unwrap().served else { panic!("the registry fails") };
    assert_eq!(age, Duration::from_secs(3600));
    time.advance(Duration::from_secs(1));
    assert!(matches!(
        guard.metadata(&name).await.unwrap_err().as_operation(),
        Some(RegistryError::Status { status: 500, .. })
    ));
}

#[tokio::test]
async fn a_lock_file_of_resolved_packages_leads_to_the_same_files() {
    let bench = Bench::new();
    let (guard, name) = (bench.guard(), bench.name());
    let lock = guard.lock(&[(&name, "*"), ("q", "*")]).await.unwrap();
    assert_eq!(lock.served, Served::Fresh);
    let path = bench.folder.path().join("packages.lock");
    lock.write(&path).unwrap();
    let read = LockFile::read(&path).unwrap();
    assert_eq!(read, lock.value);
    assert_eq!(read.index(), bench.registry.index_url());
    for id in read.packages() {
        let release = bench.registry.catalog().release(id.name.as_str(), &id.version.to_string()).unwrap().clone();
        assert_eq!(guard.download(id).await.unwrap().read().unwrap(), &release.bytes[..]);
    }
}

#[tokio::test]
async fn a_read_only_or_full_cache_does_not_keep_good_answers_from_the_caller() {
    let bench = Bench::new();
    let guard = bench.guard();
    // The folder for unfinished files is gone: nothing can be written any more.
    std::fs::remove_dir_all(guard.cache().folder().join("v1/tmp")).unwrap();
    assert_eq!(guard.metadata(&bench.name()).await.unwrap().served, Served::Fresh);
    assert_eq!(bench.saw("cache_failed high"), 1);
    let release = bench.release();
    let wanted = id(&guard, &release).await.unwrap();
    for _ in 0..6 {
        let error = guard.download(&wanted).await.unwrap_err();
        assert!(matches!(error.as_operation(), Some(RegistryError::Cache { .. })), "{error}");
    }
    assert_eq!(guard.breaker().state(), BreakerState::Closed, "a full disk is not the registry's fault");
}
