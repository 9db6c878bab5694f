//! The conditions that several verbs share, as arguments. A record must meet all of them.

use std::time::{Duration, SystemTime};

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use resilience_audit::{Kind, Query, Status};
use resilience_core::Severity;

/// Which records.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Which records (all of these)")]
pub(super) struct Filter {
    /// Recorded at this time or later: `2026-01-31T12:00:00Z`, or so long ago: `90min`, `2h`, `7days`.
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<SystemTime>,
    /// Recorded before this time, in the same forms.
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<SystemTime>,
    /// Of exactly this type of event.
    #[arg(long = "type", value_name = "TEXT")]
    event_type: Option<String>,
    /// With exactly this action.
    #[arg(long, value_name = "TEXT")]
    action: Option<String>,
    /// Done to exactly this resource.
    #[arg(long, value_name = "TEXT")]
    resource: Option<String>,
    /// Done by exactly this actor.
    #[arg(long, value_name = "TEXT")]
    actor: Option<String>,
    /// With exactly this trace or correlation id.
    #[arg(long, value_name = "TEXT")]
    correlation_id: Option<String>,
    /// With this status.
    #[arg(long, value_parser = PossibleValuesParser::new(Status::ALL.map(Status::as_str)).map(|name| status(&name)))]
    status: Option<Status>,
    /// At least this severe; records without a severity do not count.
    #[arg(long, value_parser = PossibleValuesParser::new(Severity::ALL.map(Severity::as_str)).map(|name| severity(&name)))]
    severity: Option<Severity>,
    /// Of this kind: a caller's event, or one of the log's own notes.
    #[arg(long, value_parser = PossibleValuesParser::new(Kind::ALL.map(Kind::as_str)).map(|name| kind(&name)))]
    kind: Option<Kind>,
}

// The names come from the same lists, so each is found.
fn status(name: &str) -> Status {
    Status::ALL.into_iter().find(|status| status.as_str() == name).unwrap_or_default()
}

fn severity(name: &str) -> Severity {
    Severity::ALL.into_iter().find(|severity| severity.as_str() == name).unwrap_or(Severity::Low)
}

fn kind(name: &str) -> Kind {
    Kind::ALL.into_iter().find(|kind| kind.as_str() == name).unwrap_or(Kind::Event)
}

/// A point in time, absolute or as an age.
fn time(text: &str) -> Result<SystemTime, String> {
    if let Ok(time) = humantime::parse_rfc3339_weak(text) {
        return Ok(time);
    }
    let age: Duration = humantime::parse_duration(text)
        .map_err(|_| "neither a time like 2026-01-31T12:00:00Z nor an age like 90min, 2h or 7days".to_owned())?;
    SystemTime::now().checked_sub(age).ok_or_else(|| "longer ago than clocks can tell".to_owned())
}

impl Filter {
    pub(super) fn query(&self) -> Query {
        let mut query = Query::new();
        macro_rules! given {
            ($($field:ident => $condition:ident),+ $(,)?) => {$(
                if let Some(value) = self.$field.clone() {
                    query = query.$condition(value);
                }
            )+};
        }
        given!(
            since => since, until => until, event_type => event_type, action => action, resource => resource,
            actor => actor, correlation_id => correlation_id, status => status, severity => at_least, kind => kind,
        );
        query
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_absolute_or_ages() {
        let absolute = time("2026-01-31T12:00:00Z").unwrap();
        assert_eq!(absolute.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs(), 1_769_860_800);
        assert!(time("2h").unwrap() < SystemTime::now());
        for wrong in ["yesterday", "", "2026-13-01T00:00:00Z", "-5min"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }
}
