//! The registry guard against a registry that misbehaves in every way it can.

#![cfg(feature = "testkit")]

mod registry_bench;

use std::time::Duration;

use parsercraft_guard::registry::{Checksum, GuardError, RegistryError, RegistryGuard, Served};
use parsercraft_guard::testkit::registry::{Fault, FaultyRegistry, Scope};
use registry_bench::{Bench, id};
use resilience_core::{BreakerState, Classify as _, Clock, ManualClock, RateLimiter, Reason, Retry, Severity, Stopped};

#[tokio::test]
async fn the_breaker_opens_stale_answers_are_served_and_it_recovers() {
    let bench = Bench::new();
    let guard = bench.guard();
    let name = bench.name();
    guard.metadata(&name).await.unwrap();

    bench.registry.set_fault(Fault::Refuse).unwrap();
    for _ in 0..2 {
        let answer = guard.metadata(&name).await.unwrap();
        assert!(answer.served.is_stale(), "{}", answer.served);
    }
    assert_eq!(guard.breaker().state(), BreakerState::Open);
    assert_eq!(bench.saw("Closed -> Open"), 1);
    assert_eq!(bench.saw("served_stale medium"), 2);

    // The registry is well again, but nobody asks while the breaker is open.
    bench.registry.set_fault(Fault::None).unwrap();
    let before = bench.registry.stats().requests;
    let Served::Stale { why, .. } = guard.metadata(&name).await.unwrap().served else { panic!("the breaker is open") };
    assert!(why.contains("circuit breaker `registry_fetch` is open"), "{why}");
    let nothing_cached = guard.metadata("never-seen").await.unwrap_err();
    assert!(nothing_cached.as_rejection().is_some(), "{nothing_cached}");
    assert_eq!(bench.registry.stats().requests, before);

    bench.breaker_time.advance(Duration::from_secs(120));
    for _ in 0..2 {
        assert_eq!(guard.metadata(&name).await.unwrap().served, Served::Revalidated);
    }
    assert_eq!(guard.breaker().state(), BreakerState::Closed);
    assert_eq!((bench.saw("Open -> HalfOpen"), bench.saw("HalfOpen -> Closed")), (1, 1));
}

#[tokio::test]
async fn each_fault_ends_in_a_stale_answer_or_a_typed_error_and_the_next_good_answer_heals() {
    for fault in Fault::all() {
        // Waiting is tested below.
        let fault = match fault {
            Fault::TooManyRequests { .. } => Fault::TooManyRequests { retry_after: 0 },
            other => other,
        };
        let bench = Bench::new();
        let (warm, release) = (bench.guard(), bench.release());
        let wanted = id(&warm, &release).await.unwrap();
        warm.probe().await.unwrap();

        let guard = bench
            .builder()
            .idle_timeout(Duration::from_millis(150))
            .attempt_timeout(Duration::from_millis(400))
            .download_timeout(Duration::from_millis(400))
            .max_file_bytes(4 << 20)
            .max_answer_bytes(4 << 20)
            .build()
            .unwrap();
        let fault_name = fault.as_str();
        bench.registry.set_fault(fault).unwrap();
        let answer = guard.metadata(&release.name).await;
        match &answer {
            Ok(answer) => assert!(answer.served.is_stale(), "{fault_name}: {}", answer.served),
            Err(error) => panic!("{fault_name}: {error}"),
        }
        let error = guard.download(&wanted).await.unwrap_err();
        assert!(!error.to_string().is_empty() && error.class().severity >= Severity::Low, "{fault_name}: {error:?}");
        assert!(guard.metadata("never-seen").await.is_err(), "{fault_name}");

        bench.registry.set_fault(Fault::None).unwrap();
        let healed = bench.guard();
        assert!(!healed.metadata(&release.name).await.unwrap().served.is_stale(), "{fault_name}");
        assert_eq!(healed.download(&wanted).await.unwrap().read().unwrap(), &release.bytes[..], "{fault_name}");
    }
}

#[tokio::test]
async fn a_corrupted_index_never_leads_to_wrong_bytes_and_heals_after_the_mismatch() {
    let bench = Bench::new();
    let (guard, name) = (bench.guard(), bench.name());
    bench.registry.set_fault_for(Scope::Index, Fault::None).unwrap();
    guard.probe().await.unwrap();
    let honest: Vec<_> =
        guard.metadata(&name).await.unwrap().releases().iter().map(|release| release.id.clone()).collect();
    // An index that lies about one checksum, in well-formed JSON: only the download can tell.
    let mut lying = honest[0].clone();
    lying.checksum = Checksum::of(b"a lie");
    let error = guard.download(&lying).await.unwrap_err();
    assert!(matches!(error.as_operation(), Some(RegistryError::ChecksumMismatch { .. })), "{error}");
    assert_eq!(guard.metadata(&name).await.unwrap().served, Served::Fresh, "asked anew, without validators");
}

#[tokio::test]
async fn passing_faults_are_retried_away_and_callers_never_see_them() {
    for fault in [Fault::Reset, Fault::ServerError, Fault::Truncate] {
        let bench = Bench::new();
        let guard = bench.guard();
        let fault_name = fault.as_str();
        bench.registry.set_schedule(Scope::All, vec![(fault, 2)]).unwrap();
        assert_eq!(guard.metadata(&bench.name()).await.unwrap().served, Served::Fresh, "{fault_name}");
        assert_eq!(bench.saw("retry after 1ms"), 2, "{fault_name}");
        assert_eq!(bench.registry.stats().by_fault[fault_name], 2);
    }
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let bench = Bench::new();
    let guard = bench.guard();
    bench.registry.set_schedule(Scope::All, vec![(Fault::TooManyRequests { retry_after: 1 }, 1)]).unwrap();
    assert_eq!(guard.metadata(&bench.name()).await.unwrap().served, Served::Fresh);
    assert_eq!(bench.saw("retry after 1s"), 1);
}

#[tokio::test]
async fn a_retry_after_past_the_bound_is_not_waited_for_but_passed_on() {
    let bench = Bench::new();
    let guard = bench.guard();
    bench.registry.set_fault(Fault::TooManyRequests { retry_after: 86_400 }).unwrap();
    let error = guard.metadata(&bench.name()).await.unwrap_err();
    assert_eq!((error.attempts, error.stopped), (1, Some(Stopped::RetryAfterTooLong)));
    assert_eq!(error.class().retry_after, Some(Duration::from_secs(86_400)));
    assert_eq!(bench.registry.stats().requests, 1);
}

#[tokio::test]
async fn silence_is_a_timeout_of_medium_severity() {
    for fault in [Fault::Stall, Fault::StallBody] {
        let bench = Bench::new();
        // Does not wait long for silence.
        let guard = bench.builder().idle_timeout(Duration::from_millis(150)).build().unwrap();
        bench.registry.set_fault(fault).unwrap();
        let error = guard.metadata(&bench.name()).await.unwrap_err();
        assert!(matches!(error.as_operation(), Some(RegistryError::Silent { .. })), "{error:?}");
        assert_eq!((error.class().severity, error.attempts), (Severity::Medium, 3));
    }
}

#[tokio::test]
async fn a_body_that_only_drips_is_cut_off_by_the_attempts_own_limit() {
    let bench = Bench::new();
    let guard = bench.builder().attempt_timeout(Duration::from_millis(200)).build().unwrap();
    bench.registry.set_fault(Fault::Drip { pause: Duration::from_millis(20) }).unwrap();
    let error = guard.metadata(&bench.name()).await.unwrap_err();
    assert!(error.is_timed_out(), "{error:?}");
}

#[tokio::test]
async fn a_refused_connection_is_a_network_error_of_high_severity() {
    let bench = Bench::new();
    let guard = bench.guard();
    bench.registry.set_fault(Fault::Refuse).unwrap();
    let error = guard.metadata(&bench.name()).await.unwrap_err();
    assert!(matches!(error.as_operation(), Some(RegistryError::Network { .. })), "{error:?}");
    assert_eq!((error.class().severity, error.attempts), (Severity::High, 3));
}

#[tokio::test]
async fn bodies_past_their_limit_are_not_read_announced_or_not() {
    let bench = Bench::new();
    let (guard, release) = (bench.guard(), bench.release());
    let wanted = id(&guard, &release).await.unwrap();
    let too_large = |error: GuardError| match error.as_operation() {
        Some(RegistryError::TooLarge { limit, .. }) => (*limit, error.attempts),
        _ => panic!("{error}"),
    };
    let announced = bench.builder().max_file_bytes(10).build().unwrap();
    assert_eq!(too_large(announced.download(&wanted).await.unwrap_err()), (10, 1));
    bench.registry.set_fault(Fault::Oversize { bytes: u64::MAX }).unwrap();
    let unannounced = bench.builder().max_file_bytes(1 << 20).max_answer_bytes(1 << 20).build().unwrap();
    assert_eq!(too_large(unannounced.download(&wanted).await.unwrap_err()), (1 << 20, 1));
    assert_eq!(too_large(unannounced.metadata("never-seen").await.unwrap_err()), (1 << 20, 1));
}

#[tokio::test]
async fn redirects_are_followed_only_to_hosts_that_are_allowed() {
    let (bench, other) = (Bench::new(), FaultyRegistry::start(42).unwrap());
    bench.registry.set_fault(Fault::Redirect { to: other.base_url().into() }).unwrap();
    let refused = bench.guard().metadata(&bench.name()).await.unwrap_err();
    let Some(RegistryError::RedirectRefused { reason, .. }) = refused.as_operation() else { panic!("{refused}") };
    assert_eq!((*reason, refused.attempts), ("that host is not among the allowed ones", 1));
    assert_eq!(other.stats().requests, 0);

    let allowed = bench.builder().allow_redirects_to("127.0.0.1").build().unwrap();
    assert_eq!(allowed.metadata(&bench.name()).await.unwrap().served, Served::Fresh);
    assert_eq!(other.stats().path(&bench.index_path()), 1);

    // To itself: allowed each time, endless, and ended by the limit.
    bench.registry.set_fault(Fault::Redirect { to: bench.registry.base_url().into() }).unwrap();
    let before = bench.registry.stats().requests;
    let looping = bench.guard().metadata(&bench.name()).await;
    assert!(looping.unwrap().served.is_stale());
    assert_eq!(bench.registry.stats().requests, before + 6);

    bench.registry.set_fault(Fault::Redirect { to: bench.registry.base_url().replace("http", "https") }).unwrap();
    let refused = bench.guard().metadata("never-seen").await.unwrap_err();
    assert!(refused.to_string().contains("the scheme may not change"), "{refused}");
}

#[tokio::test]
async fn the_callers_own_mistakes_never_move_the_breaker() {
    let bench = Bench::new();
    let guard = bench.guard();
    for _ in 0..20 {
        assert!(matches!(
            guard.metadata("no-such-crate").await.unwrap_err().as_operation(),
            Some(RegistryError::NotFound { .. })
        ));
        assert!(guard.metadata("../../etc/passwd").await.is_err());
        assert!(guard.resolve(&bench.name(), "not a requirement").await.is_err());
        assert!(guard.resolve(&bench.name(), ">=1000").await.is_err());
    }
    assert_eq!(guard.breaker().state(), BreakerState::Closed);
    let asked: Vec<_> = bench.registry.stats().by_path.into_keys().collect();
    assert_eq!(asked, [bench.index_path(), "/index/no/-s/no-such-crate".into()]);
}

#[tokio::test]
async fn past_its_own_limit_the_guard_asks_no_more_and_serves_what_it_has() {
    let bench = Bench::new();
    let (time, name) = (ManualClock::new(), bench.name());
    let limiter = RateLimiter::builder("registry_query")
        .rate(2, Duration::from_secs(60))
        .burst(2)
        .clock(time.clock())
        .build()
        .unwrap();
    let retry = Retry::builder().max_attempts(1).build().unwrap();
    let guard = bench.builder().limiter(limiter).retry(retry).build().unwrap();
    for expected in ["fresh", "revalidated", "stale", "stale"] {
        assert_eq!(guard.metadata(&name).await.unwrap().served.as_str(), expected);
    }
    let refused = guard.metadata("q").await.unwrap_err();
    let rejection = refused.as_rejection().expect("the limiter refuses");
    assert_eq!((&*rejection.policy, rejection.reason), ("registry_query", Reason::RateLimited));
    assert_eq!(bench.registry.stats().requests, 2);
    assert_eq!(guard.breaker().state(), BreakerState::Closed);
    time.advance(Duration::from_secs(60));
    assert_eq!(guard.metadata(&name).await.unwrap().served, Served::Revalidated);
}

#[tokio::test]
async fn any_random_schedule_of_passing_faults_leads_to_right_bytes_or_errors() {
    for seed in 0..8 {
        let bench = Bench::new();
        let guard = bench.guard();
        bench.registry.set_schedule(Scope::All, FaultyRegistry::random_schedule(seed, 10)).unwrap();
        let catalog = bench.registry.catalog();
        for release in catalog.releases().iter().take(30) {
            if let Ok(wanted) = id(&guard, release).await
                && let Ok(artifact) = guard.download(&wanted).await
            {
                assert_eq!(artifact.read().unwrap(), &release.bytes[..]);
            }
            // Whatever opened it, it gets its chance to close again.
            bench.breaker_time.advance(Duration::from_secs(120));
        }
        assert_eq!(guard.metadata(&bench.name()).await.map(|answer| answer.served.is_stale()).ok(), Some(false));
    }
}

#[test]
fn the_same_seed_gives_the_same_catalog_and_schedule() {
    let catalog = |seed| FaultyRegistry::start(seed).unwrap().catalog();
    assert_eq!(catalog(1).releases(), catalog(1).releases());
    assert_ne!(catalog(1).releases(), catalog(2).releases());
    assert_eq!(FaultyRegistry::random_schedule(5, 20), FaultyRegistry::random_schedule(5, 20));
}

#[test]
fn shutting_down_frees_the_port_even_with_stalled_clients() {
    let registry = FaultyRegistry::start(1).unwrap();
    registry.set_fault(Fault::Stall).unwrap();
    let mut client = std::net::TcpStream::connect(registry.addr()).unwrap();
    std::io::Write::write_all(&mut client, b"GET /index/config.json HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    while registry.stats().requests == 0 {
        std::thread::yield_now();
    }
    let addr = registry.addr();
    registry.shutdown();
    assert!(std::net::TcpStream::connect(addr).is_err());
    assert_eq!(std::io::Read::read(&mut client, &mut [0; 16]).unwrap_or(0), 0, "the connection was cut");
}

#[tokio::test]
async fn a_connection_error_to_an_https_address_is_a_network_error_too() {
    let bench = Bench::new();
    let index = bench.registry.index_url().replace("http", "https");
    let guard = RegistryGuard::builder(&index, bench.folder.path())
        .clock(Clock::system())
        .retry(Retry::builder().max_attempts(1).build().unwrap())
        .build()
        .unwrap();
    let error = guard.metadata("serde").await.unwrap_err();
    assert!(matches!(error.as_operation(), Some(RegistryError::Network { .. })), "{error:?}");
}
