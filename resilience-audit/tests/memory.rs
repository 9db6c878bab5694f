//! The log without a path, through the public API.

use std::time::{Duration, SystemTime};

use resilience_audit::{AppendError, AuditEvent, AuditLog, ClearError, Kind, Query, ReadError, Status, Value};
use resilience_core::{Category, Clock, ErrorId, Severity};

fn resources(log: &AuditLog, query: Query) -> Vec<String> {
    log.query(query).unwrap().map(|record| record.unwrap().resource().to_owned()).collect()
}

#[test]
fn the_ring_keeps_the_newest_and_numbers_them_all() {
    let log = AuditLog::in_memory(3).unwrap();
    for number in 1..=10 {
        log.append(AuditEvent::new("test", "count", number.to_string())).unwrap();
    }
    let last = log.last(100).unwrap();
    assert_eq!(last.iter().map(resilience_audit::Record::sequence).collect::<Vec<_>>(), [8, 9, 10]);
    assert_eq!(resources(&log, Query::new()), ["8", "9", "10"]);
    let newest_first: Vec<_> =
        log.newest_first(Query::new()).unwrap().map(|record| record.unwrap().sequence()).collect();
    assert_eq!(newest_first, [10, 9, 8]);
    assert_eq!((log.last(1).unwrap()[0].sequence(), log.last(0).unwrap().len()), (10, 0));
}

#[test]
fn clearing_needs_permission_and_leaves_a_record_of_itself() {
    let log = AuditLog::default();
    log.append(AuditEvent::new("test", "a", "b")).unwrap();
    assert_eq!(log.clear("mallory"), Err(ClearError::NotPermitted));
    assert_eq!(log.last(10).unwrap().len(), 1);

    let log = AuditLog::builder().permit_clear(true).build().unwrap();
    for _ in 0..5 {
        log.append(AuditEvent::new("test", "a", "b")).unwrap();
    }
    assert_eq!(log.clear("ada"), Ok(5));
    let left = log.last(10).unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!((left[0].kind(), left[0].sequence(), left[0].actor()), (Kind::Cleared, 6, "ada"));
    assert_eq!(left[0].detail("removed"), Some(&Value::Int(5)));
}

#[test]
fn a_record_shows_every_field_on_one_line_and_as_one_json_object() {
    let (clock, time) = Clock::manual();
    time.advance(Duration::from_nanos(1_500_000_007));
    let log = AuditLog::builder().clock(clock).build().unwrap();
    let id: ErrorId = "01997c3e-5a80-7000-8000-000000000001".parse().unwrap();
    let event = AuditEvent::new("registry", "download", "serde 1.0")
        .status(Status::Failure)
        .actor("ci")
        .correlation_id("req-7")
        .severity(Severity::High)
        .category(Category::Network)
        .error_id(id)
        .error("connection \"reset\"\nFAKE LINE \u{1b}[31mred")
        .detail("bytes", 17)
        .detail("ratio", 0.5)
        .detail("cached", false)
        .detail("token", "hunter2");
    log.append(event).unwrap();
    let record = &log.last(1).unwrap()[0];
    insta::assert_snapshot!(record.to_string(), @r#"2026-01-01T00:00:01.500000007Z #1 registry download "serde 1.0" failure actor=ci correlation_id=req-7 severity=high category=network error_id=01997c3e-5a80-7000-8000-000000000001 bytes=17 cached=false ratio=0.5 token=[redacted] error="connection \"reset\"\nFAKE LINE \u{1b}[31mred""#);
    insta::assert_snapshot!(resilience_audit::json_line(record), @r#"{"sequence":1,"time":"2026-01-01T00:00:01.500000007Z","monotonic_ns":86401500000007,"kind":"event","event_type":"registry","action":"download","resource":"serde 1.0","status":"failure","actor":"ci","correlation_id":"req-7","error":"connection \"reset\"\nFAKE LINE \u001b[31mred","severity":"high","category":"network","error_id":"01997c3e-5a80-7000-8000-000000000001","details":{"bytes":17,"cached":false,"ratio":0.5,"token":"[redacted]"}}"#);
}

#[test]
fn text_that_could_fake_lines_or_steer_a_terminal_is_escaped_in_every_rendering() {
    let hostile = "a\n2026-01-01T00:00:00Z #9 user login root success\r\u{1b}[2J\u{9b}0m\u{7f}\u{202e}\u{200b}\u{2028}\u{feff}\u{e0041}";
    let log = AuditLog::default();
    log.append(AuditEvent::new("t", "a", hostile).detail(hostile, hostile).error(hostile)).unwrap();
    let record = &log.last(1).unwrap()[0];
    let json = resilience_audit::json_line(record);
    for text in [record.to_string(), json.clone()] {
        assert!(
            text.chars().all(|c| !c.is_control() && !"\u{202e}\u{200b}\u{2028}\u{feff}\u{e0041}".contains(c)),
            "{text:?}"
        );
    }
    let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(parsed["resource"], hostile, "escaping must not change the content");
    assert_eq!(parsed["details"][hostile], hostile);
}

#[test]
fn what_cannot_be_recorded_is_a_typed_error_that_names_the_limit() {
    let log = AuditLog::default();
    let error = |event: AuditEvent| log.append(event).unwrap_err().to_string();
    insta::assert_snapshot!(error(AuditEvent::new("x".repeat(2000), "a", "r")), @"`event_type` has 2000 bytes; allowed: at most 1024");
    insta::assert_snapshot!(error(AuditEvent::new("t", "a", "r").error("x".repeat(5000))), @"`error` has 5000 bytes; allowed: at most 4096");
    insta::assert_snapshot!(error(AuditEvent::new("t", "a", "r").detail("k", "x".repeat(20_000))), @"`details` has 20006 bytes; allowed: at most 16384");
    let many = (0..65).fold(AuditEvent::new("t", "a", "r"), |event, n| event.detail(format!("k{n}"), n));
    insta::assert_snapshot!(error(many), @"the event has 65 details; allowed: at most 64");
    let before_1970 = SystemTime::UNIX_EPOCH - Duration::from_nanos(1);
    insta::assert_snapshot!(error(AuditEvent::new("t", "a", "r").at(before_1970)), @"the wall time is -1 s from 1970-01-01T00:00:00Z; allowed: 0 to 18446744073");
    let too_late = SystemTime::UNIX_EPOCH + Duration::from_secs(20_000_000_000);
    assert_eq!(
        log.append(AuditEvent::new("t", "a", "r").at(too_late)),
        Err(AppendError::TimeOutOfRange { seconds_from_1970: 20_000_000_000 })
    );
    assert_eq!(log.last(10).unwrap().len(), 0, "nothing of this was recorded");
}

#[test]
fn an_offered_event_is_cut_to_size_instead_of_refused() {
    let log = AuditLog::default();
    log.offer(AuditEvent::new("t", "a", "x".repeat(100_000)).error("é".repeat(100_000)));
    let record = &log.last(1).unwrap()[0];
    assert!(record.resource().ends_with('…') && record.resource().len() <= 1024);
    assert!(record.error().ends_with('…') && record.error().len() <= 4096);
}

#[test]
fn settings_out_of_range_are_named_with_what_is_allowed() {
    let error = |builder: resilience_audit::AuditLogBuilder| builder.build().unwrap_err().to_string();
    insta::assert_snapshot!(error(AuditLog::builder().capacity(0)), @"`audit.capacity` is 0; allowed: 1 to 1000000");
    insta::assert_snapshot!(error(AuditLog::builder().queue(0)), @"`audit.queue` is 0; allowed: 1 to 1048576");
    insta::assert_snapshot!(error(AuditLog::builder().segment_bytes(10)), @"`audit.segment_bytes` is 10; allowed: 4096 to 1099511627776");
    insta::assert_snapshot!(error(AuditLog::builder().retry_every(Duration::ZERO)), @"`audit.retry_every` is 0ns; allowed: 1 ms to 1 h");
    insta::assert_snapshot!(error(AuditLog::builder().backpressure(resilience_audit::Backpressure::Block(Duration::ZERO))), @"`audit.backpressure` is Block(0ns); allowed: more than 0, at most 1 h");
    insta::assert_snapshot!(error(AuditLog::builder().redaction(resilience_audit::Redaction::new().hash("email"))), @"`redaction.hash_key` is missing; allowed: 32 bytes, because `email` is hashed");
}

#[test]
fn a_query_is_the_conjunction_of_its_conditions() {
    let (clock, time) = Clock::manual();
    let log = AuditLog::builder().clock(clock.clone()).build().unwrap();
    let begin = clock.wall();
    for (event_type, resource, severity) in
        [("a", "1", Severity::Low), ("b", "2", Severity::High), ("a", "3", Severity::Critical)]
    {
        log.append(AuditEvent::new(event_type, "act", resource).severity(severity).actor(resource)).unwrap();
        time.advance(Duration::from_secs(1));
    }
    log.append(AuditEvent::new("a", "act", "4").error("boom").correlation_id("c")).unwrap();
    let second = begin + Duration::from_secs(1);
    assert_eq!(resources(&log, Query::new().event_type("a")), ["1", "3", "4"]);
    assert_eq!(resources(&log, Query::new().event_type("a").at_least(Severity::High)), ["3"]);
    assert_eq!(resources(&log, Query::new().since(second).until(second + Duration::from_secs(1))), ["2"]);
    assert_eq!(resources(&log, Query::new().status(Status::Failure)), ["4"]);
    assert_eq!(resources(&log, Query::new().correlation_id("c").action("act").kind(Kind::Event)), ["4"]);
    assert_eq!(resources(&log, Query::new().actor("2").resource("2")), ["2"]);
    assert_eq!(resources(&log, Query::new().actor("2").resource("3")), [""; 0]);
}

#[test]
fn there_is_nothing_to_verify_in_memory_and_durability_is_immediate() {
    let log = AuditLog::default();
    assert!(matches!(log.verify(), Err(ReadError::InMemory)));
    assert_eq!(log.append_durable(AuditEvent::new("t", "a", "r")).unwrap().wait().unwrap().sequence, 1);
    assert_eq!(log.flush().unwrap().wait().unwrap().sequence, 1);
    let statistics = log.statistics();
    assert_eq!((statistics.handed_over, statistics.recorded, statistics.last_sequence), (1, 1, 1));
}
