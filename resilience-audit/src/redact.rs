//! What happens to the details of an event before it is recorded: keep, hash or drop, by key.
//! Without a rule for its key only text counts as a secret, so that `token_count: 17` stays readable.

use std::collections::BTreeMap;
use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use resilience_core::ConfigError;
use sha2::Sha256;

use crate::event::Value;

/// What to do with a detail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Allow,
    Hash,
    Drop,
}

/// Words that mark a key as secret wherever they occur in it as a word of their own.
const SECRET_WORDS: [&str; 17] = [
    "apikey",
    "apitoken",
    "auth",
    "authorization",
    "bearer",
    "cookie",
    "credential",
    "jwt",
    "otp",
    "passphrase",
    "passwd",
    "password",
    "pin",
    "privatekey",
    "pwd",
    "secret",
    "token",
];
/// Pairs of neighbouring words that do.
const SECRET_PAIRS: [(&str, &str); 5] =
    [("api", "key"), ("access", "key"), ("private", "key"), ("session", "id"), ("signing", "key")];

/// Which details of events are recorded as they are, which as a keyed hash, and which not at all.
///
/// By default everything whose key names a secret (`password`, `authToken`, `x-api-key`, `Set-Cookie`, …) is dropped:
/// the key stays, with a mark in place of the value. Rules for exact keys come first. Keys are compared without regard
/// to case.
///
/// ```
/// use resilience_audit::{AuditEvent, AuditLog, Redaction, Value};
///
/// let redaction = Redaction::new().hash_key([7; 32]).hash("email").allow("token");
/// let log = AuditLog::builder().redaction(redaction).build()?;
/// log.append(AuditEvent::new("user", "login", "web").detail("email", "ada@example.org").detail("pwd", "hunter2"))?;
/// let record = &log.last(1)?[0];
/// assert!(matches!(record.detail("email"), Some(Value::Hashed(_))));
/// assert_eq!(record.detail("pwd"), Some(&Value::Redacted));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct Redaction {
    exact: BTreeMap<String, Action>,
    key: Option<[u8; 32]>,
}

impl Redaction {
    /// The default policy: what looks like a secret is dropped, the rest is kept.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps the detail with this key whatever its name suggests.
    #[must_use]
    pub fn allow(self, key: &str) -> Self {
        self.rule(key, Action::Allow)
    }

    /// Records the HMAC-SHA-256 of the text with this key, so that equal values can be found without being shown.
    /// Needs [`hash_key`](Self::hash_key).
    #[must_use]
    pub fn hash(self, key: &str) -> Self {
        self.rule(key, Action::Hash)
    }

    /// Drops the detail with this key.
    #[must_use]
    pub fn drop(self, key: &str) -> Self {
        self.rule(key, Action::Drop)
    }

    /// The key of the hashes. Without it, hashes of short values could be guessed; keep it away from the log.
    #[must_use]
    pub fn hash_key(mut self, key: [u8; 32]) -> Self {
        self.key = Some(key);
        self
    }

    fn rule(mut self, key: &str, action: Action) -> Self {
        self.exact.insert(key.to_lowercase(), action);
        self
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        match self.exact.iter().find(|(_, action)| **action == Action::Hash) {
            Some((key, _)) if self.key.is_none() => {
                Err(ConfigError::new("redaction.hash_key", "missing", format!("32 bytes, because `{key}` is hashed")))
            }
            _ => Ok(()),
        }
    }

    /// Applies the policy to one detail.
    pub(crate) fn apply(&self, key: &str, value: &mut Value) {
        let exact = if self.exact.is_empty() { None } else { self.exact.get(&key.to_lowercase()).copied() };
        let action = match (exact, &*value) {
            (Some(action), _) => action,
            (None, Value::Text(_)) if names_a_secret(key) => Action::Drop,
            (None, _) => Action::Allow,
        };
        match (action, &self.key) {
            (Action::Allow, _) => {}
            (Action::Hash, Some(secret)) => {
                let text = match &*value {
                    Value::Text(text) => text.clone(),
                    Value::Redacted | Value::Hashed(_) => return,
                    scalar => scalar.to_string().into(),
                };
                // HMAC takes keys of every length; were it otherwise, the value must still not be shown.
                *value = Hmac::<Sha256>::new_from_slice(secret).map_or(Value::Redacted, |hmac| {
                    Value::Hashed(hmac.chain_update(text.as_bytes()).finalize().into_bytes().into())
                });
            }
            (Action::Hash, None) | (Action::Drop, _) => *value = Value::Redacted,
        }
    }
}

impl fmt::Debug for Redaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redaction").field("exact", &self.exact).field("hash_key", &self.key.map(|_| "set")).finish()
    }
}

/// Whether a key, taken apart into words at punctuation and at changes of case, contains the name of a secret.
fn names_a_secret(key: &str) -> bool {
    let mut words: Vec<String> = vec![String::new()];
    let mut after_lower = false;
    for c in key.chars() {
        if !c.is_alphanumeric() || (c.is_uppercase() && after_lower) {
            words.push(String::new());
        }
        if c.is_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.extend(c.to_lowercase());
        }
        after_lower = c.is_lowercase() || c.is_numeric();
    }
    words.retain(|word| !word.is_empty());
    let singular = |word: &str| word.strip_suffix('s').unwrap_or(word).to_owned();
    let secret =
        |word: &String| SECRET_WORDS.contains(&word.as_str()) || SECRET_WORDS.contains(&singular(word).as_str());
    words.iter().any(secret)
        || words.windows(2).any(|pair| SECRET_PAIRS.contains(&(pair[0].as_str(), singular(&pair[1]).as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_name_a_secret_are_recognised_in_every_spelling() {
        for secret in [
            "password",
            "PASSWORD",
            "user_password",
            "passwordHash",
            "db.passwd",
            "authToken",
            "access-token",
            "tokens",
            "Authorization",
            "x-api-key",
            "apiKey",
            "API_KEYS",
            "apikey",
            "Set-Cookie",
            "client_secret",
            "privateKey",
            "credentials",
            "session id",
        ] {
            assert!(names_a_secret(secret), "{secret}");
        }
        for harmless in ["tokenizer", "author", "key", "monkey", "keyboard", "path", "compass", "passed", "pinned", ""]
        {
            assert!(!names_a_secret(harmless), "{harmless}");
        }
    }

    #[test]
    fn exact_rules_come_first_and_otherwise_only_text_is_taken_out() {
        let policy = Redaction::new().allow("Token").drop("note").hash("user").hash_key([1; 32]);
        let apply = |key: &str, value: Value| {
            let mut value = value;
            policy.apply(key, &mut value);
            value
        };
        assert_eq!(apply("token_count", Value::Int(17)), Value::Int(17));
        assert_eq!(apply("token_text", Value::from("x")), Value::Redacted);
        assert_eq!(apply("token", Value::from("ident")), Value::from("ident"));
        assert_eq!(apply("NOTE", Value::Int(1234)), Value::Redacted);
        assert_eq!(apply("user", Value::from("ada")), apply("user", Value::from("ada")));
        assert_ne!(apply("user", Value::from("ada")), apply("user", Value::from("bob")));
    }

    #[test]
    fn the_hash_is_hmac_sha_256() {
        // RFC 4231 has no 32-byte key; this vector was made with Python's hmac module.
        let policy = Redaction::new().hash("user").hash_key([1; 32]);
        let mut value = Value::from("ada");
        policy.apply("user", &mut value);
        assert_eq!(value.to_string(), "[hmac-sha256:f6d9e54cf0783007019e3f2751f48172ea65d02081d93ff75c416b525bdc4d82]");
    }

    #[test]
    fn hashing_without_a_key_is_a_configuration_error() {
        let error = Redaction::new().hash("email").check().unwrap_err();
        assert_eq!(error.to_string(), "`redaction.hash_key` is missing; allowed: 32 bytes, because `email` is hashed");
    }
}
