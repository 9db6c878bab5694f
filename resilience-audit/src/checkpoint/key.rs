//! Ed25519 keys in the text forms of C2SP signed notes. A private key is wiped from memory when it is dropped, is
//! never printed by `Debug`, and its file is refused when others can read it.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::Signer as _;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// The type byte of plain Ed25519 signatures.
const ED25519: u8 = 1;
/// A file with a longer text is no key.
const MAX_FILE: u16 = 4096;

/// Why a key cannot be used. No message carries any of a private key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The name cannot be used for a key.
    #[error("the key name `{0}` cannot be used; allowed: 1 to 255 bytes without spaces, `+` and control characters")]
    Name(String),
    /// The text is not a key.
    #[error("not a {expected} ({what})")]
    Malformed {
        /// What it should be.
        expected: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Others than the owner may read the file with the private key.
    #[error("{} has mode {mode:04o}, so others can reach the private key; allowed: 0600 (chmod 600 {})", path.display(), path.display())]
    InsecurePermissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The system refused something.
    #[error("cannot {step} {}: {source}", path.display())]
    Io {
        /// What was being done.
        step: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system has no random numbers to make a key of.
    #[error("the system gave no random numbers for a key")]
    NoRandomness,
}

impl KeyError {
    fn io(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { step, path: path.to_owned(), source }
    }
}

/// A private key that signs checkpoints. Clones share one copy of it in memory.
///
/// Its text form is `PRIVATE+KEY+name+id+base64`, as Go's `sumdb/note` and other C2SP tools write it.
#[derive(Clone)]
pub struct SigningKey(Arc<Secret>);

struct Secret {
    verifying: VerifyingKey,
    /// Wipes itself when dropped.
    key: ed25519_dalek::SigningKey,
}

impl SigningKey {
    /// A new key. The name is public and stands in every signature: a URL without scheme is the custom, as
    /// `example.com/audit`. Give each log a key name of its own.
    ///
    /// # Errors
    /// When the name cannot be used, or the system has no random numbers.
    pub fn generate(name: &str) -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut_slice()).map_err(|_| KeyError::NoRandomness)?;
        Self::from_seed(name, &seed)
    }

    fn from_seed(name: &str, seed: &[u8; 32]) -> Result<Self, KeyError> {
        let key = ed25519_dalek::SigningKey::from_bytes(seed);
        let verifying = VerifyingKey::new(name, key.verifying_key())?;
        Ok(Self(Arc::new(Secret { verifying, key })))
    }

    /// Reads the key from a file that only its owner can read.
    ///
    /// # Errors
    /// When the file cannot be read, others can read it, or it does not hold one key.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, KeyError> {
        let path = path.as_ref();
        let file = fs::File::open(path).map_err(KeyError::io("open", path))?;
        #[cfg(unix)]
        {
            let metadata = file.metadata().map_err(KeyError::io("look at", path))?;
            let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o7777;
            if mode & 0o077 != 0 {
                return Err(KeyError::InsecurePermissions { path: path.to_owned(), mode });
            }
        }
        // With room for all of it, so that no copy is left behind where a growing buffer was.
        let mut text = Zeroizing::new(String::with_capacity(usize::from(MAX_FILE)));
        file.take(u64::from(MAX_FILE)).read_to_string(&mut text).map_err(KeyError::io("read", path))?;
        text.trim_end_matches(['\n', '\r']).parse()
    }

    /// Writes the key to a new file that only its owner can read. An existing file is never overwritten.
    ///
    /// # Errors
    /// When there is a file already, or it cannot be written.
    pub fn write_new(&self, path: impl AsRef<Path>) -> Result<(), KeyError> {
        let path = path.as_ref();
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path).map_err(KeyError::io("create", path))?;
        let text = self.expose();
        let written = file.write_all(text.as_bytes()).and_then(|()| file.write_all(b"\n"));
        written.and_then(|()| file.sync_all()).map_err(KeyError::io("write", path))
    }

    /// The text form of the private key, wiped when dropped. Whoever has it can sign.
    pub fn expose(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new([ED25519; 33]);
        bytes[1..].copy_from_slice(self.0.key.as_bytes());
        let encoded = Zeroizing::new(STANDARD.encode(bytes.as_slice()));
        let verifying = &self.0.verifying;
        let mut text = Zeroizing::new(String::with_capacity(verifying.name.len() + 96));
        for part in ["PRIVATE+KEY+", &verifying.name, &format!("+{:08x}+", verifying.id), &encoded] {
            text.push_str(part);
        }
        text
    }

    /// The public half.
    pub fn verifying_key(&self) -> VerifyingKey {
        self.0.verifying.clone()
    }

    pub(crate) fn sign(&self, text: &[u8]) -> [u8; 64] {
        self.0.key.sign(text).to_bytes()
    }
}

/// Only what is public of it.
impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({}+{:08x})", self.0.verifying.name, self.0.verifying.id)
    }
}

impl FromStr for SigningKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = |what| KeyError::Malformed { expected: "private key: PRIVATE+KEY+name+id+base64", what };
        let rest = text.strip_prefix("PRIVATE+KEY+").ok_or(malformed("it begins otherwise"))?;
        let (name, id, bytes) = parts(rest).map_err(malformed)?;
        let key = Self::from_seed(name, &bytes)?;
        if key.0.verifying.id == id { Ok(key) } else { Err(malformed("its id is not that of the key")) }
    }
}

/// A public key that checks checkpoints: `name+id+base64` as text.
///
/// ```
/// use resilience_audit::checkpoint::VerifyingKey;
///
/// let text = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
/// let key: VerifyingKey = text.parse()?;
/// assert_eq!((key.name(), key.to_string().as_str()), ("PeterNeumann", text));
/// # Ok::<(), resilience_audit::checkpoint::KeyError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct VerifyingKey {
    name: String,
    id: u32,
    key: ed25519_dalek::VerifyingKey,
}

impl VerifyingKey {
    fn new(name: &str, key: ed25519_dalek::VerifyingKey) -> Result<Self, KeyError> {
        if !valid_name(name) {
            return Err(KeyError::Name(name.chars().filter(|c| !c.is_control()).take(80).collect()));
        }
        let digest = Sha256::new().chain_update(name).chain_update([b'\n', ED25519]).chain_update(key.as_bytes());
        let [a, b, c, d, ..] = <[u8; 32]>::from(digest.finalize());
        Ok(Self { name: name.to_owned(), id: u32::from_be_bytes([a, b, c, d]), key })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its id: with the name, it says by which key a signature is.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Reads several keys, one a line; empty lines and lines that begin with `#` are passed over.
    ///
    /// # Errors
    /// When a line is not a key, or there is none at all.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, KeyError> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let keys: Vec<Self> = lines.map(str::parse).collect::<Result<_, _>>()?;
        if keys.is_empty() { Err(KeyError::Malformed { expected: VERIFYING, what: "there is none" }) } else { Ok(keys) }
    }

    pub(crate) fn verifies(&self, text: &[u8], signature: &[u8]) -> bool {
        let Ok(signature) = ed25519_dalek::Signature::from_slice(signature) else { return false };
        self.key.verify_strict(text, &signature).is_ok()
    }
}

impl fmt::Display for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [ED25519; 33];
        bytes[1..].copy_from_slice(self.key.as_bytes());
        write!(f, "{}+{:08x}+{}", self.name, self.id, STANDARD.encode(bytes))
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({self})")
    }
}

const VERIFYING: &str = "public key: name+id+base64";

impl FromStr for VerifyingKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = |what| KeyError::Malformed { expected: VERIFYING, what };
        if text.starts_with("PRIVATE+KEY+") {
            return Err(malformed("it is a private key: keep it secret, and give the public one"));
        }
        let (name, id, bytes) = parts(text).map_err(malformed)?;
        let key = ed25519_dalek::VerifyingKey::from_bytes(&bytes).map_err(|_| malformed("no point of the curve"))?;
        if key.is_weak() {
            return Err(malformed("it is a weak key, for which anyone can sign"));
        }
        let key = Self::new(name, key)?;
        if key.id == id { Ok(key) } else { Err(malformed("its id is not that of the key")) }
    }
}

/// `name+id+base64`, of which the base64 holds the type byte and 32 bytes.
fn parts(text: &str) -> Result<(&str, u32, Zeroizing<[u8; 32]>), &'static str> {
    let (name, rest) = text.split_once('+').ok_or("it has too few parts")?;
    let (id, encoded) = rest.split_once('+').ok_or("it has too few parts")?;
    if id.len() != 8 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err("its id is not 8 hexadecimal digits");
    }
    let id = u32::from_str_radix(id, 16).map_err(|_| "its id is not 8 hexadecimal digits")?;
    let decoded = Zeroizing::new(STANDARD.decode(encoded).map_err(|_| "its last part is not base64")?);
    let Some((&ED25519, bytes)) = decoded.split_first() else { return Err("it is of another type than Ed25519") };
    let bytes: &[u8; 32] = bytes.try_into().map_err(|_| "it does not have 32 bytes")?;
    Ok((name, id, Zeroizing::new(*bytes)))
}

pub(crate) fn valid_name(name: &str) -> bool {
    (1..=255).contains(&name.len()) && name.chars().all(|c| !c.is_whitespace() && !c.is_control() && c != '+')
}
