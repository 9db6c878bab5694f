//! A reader in Python, written from the specification alone, reads what the crate wrote: the spec is enough.
//! Without a Python on the machine there is nothing to compare with, and the test says so.

use std::process::Command;

use resilience_audit::{AuditEvent, AuditLog, AuditLogBuilder, Query, Redaction, json_line};
use resilience_core::{Category, Severity};

/// A builder that signs checkpoints too, where this build can.
fn signing(builder: AuditLogBuilder) -> AuditLogBuilder {
    #[cfg(feature = "checkpoints")]
    let builder = builder
        .sign_checkpoints(resilience_audit::checkpoint::SigningKey::generate("example.com/audit").unwrap())
        .checkpoint_records(13);
    builder
}

#[test]
fn an_independent_reader_sees_the_same_records_and_hashes() {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("skipped: python3 is not installed");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("audit");
    let redaction = Redaction::new().hash("email").hash_key([7; 32]);
    let log = AuditLog::builder().path(&dir).segment_bytes(4096).redaction(redaction);
    let log = signing(log).build().unwrap();
    for number in 0..60_u32 {
        let event = AuditEvent::new("registry", "download", format!("crate-{number} é"))
            .actor("ci")
            .correlation_id("c")
            .error(if number % 3 == 0 { "refused" } else { "" })
            .severity(Severity::ALL[number as usize % 4])
            .category(Category::ALL[number as usize % 6])
            .error_id("01997c3e-5a80-7000-8000-000000000001".parse().unwrap())
            .detail("password", "hunter2")
            .detail("email", "ada@example.org")
            .detail("number", -i64::from(number))
            .detail("ratio", f64::from(number) / 4.0)
            .detail("ok", number % 2 == 0);
        log.append_durable(event).unwrap().wait().unwrap();
    }
    let expected: Vec<serde_json::Value> = log
        .query(Query::new())
        .unwrap()
        .map(|record| serde_json::from_str(&json_line(&record.unwrap())).unwrap())
        .collect();
    drop(log);

    let reader = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/independent_reader.py");
    let output = Command::new("python3").arg(reader).arg(&dir).output().unwrap();
    let checkpoints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{checkpoints}");
    let whole = checkpoints.lines().any(|line| line == "checkpoint example.com/audit 60");
    assert_eq!(whole, cfg!(feature = "checkpoints"), "{checkpoints}");
    let found: Vec<serde_json::Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(found.len(), 60);
    for (found, expected) in found.iter().zip(&expected) {
        for key in found.as_object().unwrap().keys() {
            assert_eq!(found[key], expected[key], "{key}");
        }
    }
}
