//! The registry guard: a client for cargo's sparse index protocol that goes on when the registry does not.
//! Package files are served only when their bytes have the checksum of the index; index answers may be old when the
//! registry fails, and then say so. It does not build, install or publish anything.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use parsercraft_guard::registry::RegistryGuard;
//!
//! let guard = RegistryGuard::builder("https://index.example/", "/var/cache/guard").build()?;
//! let release = guard.resolve("serde", "1.0").await?;
//! let file = guard.download(&release.id).await?;
//! println!("{} bytes, {}", file.len(), file.served);
//! # Ok(())
//! # }
//! ```

mod builder;
mod cache;
mod checksum;
mod error;
mod freshness;
mod guard;
mod index;
mod lock;
mod name;
mod served;
mod upstream;

pub use builder::Builder;
pub use cache::{Artifact, Cache, Lookup};
pub use checksum::{Checksum, InvalidChecksum};
pub use error::{RegistryError, SafeUrl};
pub use guard::{GuardError, RegistryGuard, Statistics};
pub use index::{Dependency, Metadata, PackageId, Release};
pub use lock::LockFile;
pub use name::{Ecosystem, PackageName};
pub use served::{Served, WithOrigin};
