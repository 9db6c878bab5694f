//! What a log is told about checkpoints when it is built, and what can be asked of it afterwards.
//! Without a key nothing of this does anything, and nothing of it costs anything.

use std::sync::Arc;
use std::time::Duration;

use resilience_core::ConfigError;

use crate::checkpoint::{Checkpoint, CheckpointError, Proof, ProofError, SigningKey, VerifyingKey, proof};
use crate::config::AuditLogBuilder;
use crate::log::AuditLog;

/// The settings of the builder.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) keys: Vec<SigningKey>,
    pub(crate) former: Vec<VerifyingKey>,
    pub(crate) origin: Option<String>,
    pub(crate) interval: Duration,
    pub(crate) records: u64,
    pub(crate) keep: usize,
}

impl Default for Settings {
    fn default() -> Self {
        let (keys, former, origin) = (Vec::new(), Vec::new(), None);
        Self { keys, former, origin, interval: Duration::from_secs(60), records: 1_000_000, keep: 100 }
    }
}

impl Settings {
    /// The keys whose checkpoints the log takes for its own.
    pub(crate) fn own(&self) -> Vec<VerifyingKey> {
        self.keys.iter().map(SigningKey::verifying_key).chain(self.former.iter().cloned()).collect()
    }

    pub(crate) fn origin(&self) -> String {
        let first = self.keys.first().map(|key| key.verifying_key().name().to_owned());
        self.origin.clone().or(first).unwrap_or_default()
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let day = Duration::from_secs(24 * 3600);
        if !(Duration::from_millis(1)..=day).contains(&self.interval) {
            let interval = format!("{:?}", self.interval);
            return Err(ConfigError::new("audit.checkpoint_every", interval, "1 ms to 24 h"));
        }
        if self.records == 0 {
            return Err(ConfigError::new("audit.checkpoint_records", 0, "at least 1"));
        }
        if !(1..=1_000_000).contains(&self.keep) {
            return Err(ConfigError::new("audit.keep_checkpoints", self.keep, "1 to 1000000"));
        }
        if self.keys.len() > 16 {
            return Err(ConfigError::new("audit.sign_checkpoints", self.keys.len(), "at most 16 keys"));
        }
        if let Some(origin) = &self.origin
            && (origin.is_empty() || origin.len() > 255 || origin.chars().any(char::is_control))
        {
            return Err(ConfigError::new("audit.origin", origin, "1 to 255 bytes without control characters"));
        }
        Ok(())
    }
}

impl AuditLogBuilder {
    /// Signs checkpoints of the log with this key; called again, each is signed with every key. Needs a path.
    ///
    /// A checkpoint is made when the log is closed, [every so often](Self::checkpoint_every), after
    /// [so many records](Self::checkpoint_records), and when [asked for](AuditLog::checkpoint). The records are read
    /// back and verified before they are signed, on a thread of its own: appending does not wait for it. Opening
    /// refuses a log that is shorter than its newest checkpoint.
    pub fn sign_checkpoints(mut self, key: SigningKey) -> Self {
        self.checkpoints.keys.push(key);
        self
    }

    /// A key that signed this log's checkpoints before: with it, the log goes on from them. For changing keys.
    pub fn former_key(mut self, key: VerifyingKey) -> Self {
        self.checkpoints.former.push(key);
        self
    }

    /// The first line of each checkpoint, which says of which log it is; the name of the first key by default.
    pub fn origin(mut self, origin: impl Into<String>) -> Self {
        self.checkpoints.origin = Some(origin.into());
        self
    }

    /// How long after the last checkpoint another is made, if there are new records: 1 ms to 24 h, 1 min by default.
    pub fn checkpoint_every(mut self, interval: Duration) -> Self {
        self.checkpoints.interval = interval;
        self
    }

    /// After how many new records a checkpoint is made without waiting for its time: at least 1, 1 000 000 by default.
    pub fn checkpoint_records(mut self, records: u64) -> Self {
        self.checkpoints.records = records;
        self
    }

    /// How many checkpoint files are kept: 1 to 1 000 000, 100 by default. The newest covers all records.
    pub fn keep_checkpoints(mut self, files: usize) -> Self {
        self.checkpoints.keep = files;
        self
    }
}

impl AuditLog {
    /// Makes a checkpoint of what is durable now, or returns the last one when nothing came since. Blocks until it is
    /// on the disk.
    ///
    /// ```
    /// use resilience_audit::{AuditEvent, AuditLog, checkpoint::{SigningKey, check_proof}};
    ///
    /// # let place = tempfile::tempdir()?;
    /// # let dir = place.path().join("audit");
    /// let key = SigningKey::generate("example.com/audit")?;
    /// let log = AuditLog::builder().path(&dir).sign_checkpoints(key.clone()).build()?;
    /// log.append_durable(AuditEvent::new("user", "login", "ada"))?.wait()?;
    /// assert_eq!(log.checkpoint()?.size, 1);
    ///
    /// // A file that shows the record to anyone with the public key, without the log:
    /// let proof = log.prove(1)?.to_string();
    /// let proven = check_proof(proof.as_bytes(), &[key.verifying_key()])?;
    /// assert_eq!(proven.record.resource(), "ada");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`CheckpointError::NotSigning`] without a key, or when the log is closed and has new records since its last
    /// checkpoint; [`CheckpointError::NotMade`] when the records cannot be read, are not sound, do not continue the last
    /// checkpoint, or the file cannot be written.
    pub fn checkpoint(&self) -> Result<Checkpoint, CheckpointError> {
        let signer = self.backend().and_then(|durable| durable.signer.as_ref()).ok_or(CheckpointError::NotSigning)?;
        signer.make()
    }

    /// The newest checkpoint this log has made or found.
    pub fn latest_checkpoint(&self) -> Option<Checkpoint> {
        self.backend()?.signer.as_ref()?.latest()
    }

    /// Why the last attempt to make a checkpoint failed; `None` when it did not.
    pub fn checkpoint_failure(&self) -> Option<Arc<str>> {
        self.backend()?.signer.as_ref()?.failure()
    }

    /// Proves that record `sequence` is in the log: for the newest checkpoint that covers it, made now if need be.
    ///
    /// # Errors
    /// As [`checkpoint`](Self::checkpoint); also when the log has no such record or cannot be read.
    pub fn prove(&self, sequence: u64) -> Result<Proof, ProofError> {
        let durable = self.backend().ok_or(CheckpointError::NotSigning)?;
        let checkpoint = match self.latest_checkpoint() {
            Some(latest) if latest.size >= sequence => latest,
            _ => self.checkpoint()?,
        };
        proof::prove_at(&durable.storage, &durable.path, sequence, &checkpoint)
    }
}
