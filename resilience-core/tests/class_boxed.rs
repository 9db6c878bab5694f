//! What boxed errors mean: the first known error behind them decides.

use std::convert::Infallible;
use std::error::Error;
use std::{fmt, io};

use resilience_core::class::of_chain;
use resilience_core::{Category, Classify, Pipeline};

#[derive(Debug)]
struct Wrapped(Option<Box<dyn Error + Send + Sync>>);

impl fmt::Display for Wrapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("wrapped")
    }
}

impl Error for Wrapped {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.as_deref().map(|error| error as _)
    }
}

fn reset() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

#[test]
fn the_first_known_error_of_the_chain_decides() {
    let cases: [(Box<dyn Error + Send + Sync>, Category); 7] = [
        (reset().into(), Category::Network),
        (Wrapped(Some(reset().into())).into(), Category::Network),
        (Wrapped(Some(Wrapped(Some(reset().into())).into())).into(), Category::Network),
        // An I/O error that only carries another one says nothing itself.
        (io::Error::other(reset()).into(), Category::Network),
        (
            io::Error::other(Wrapped(Some(io::Error::new(io::ErrorKind::TimedOut, reset()).into()))).into(),
            Category::Timeout,
        ),
        (Wrapped(None).into(), Category::Unknown),
        ("just text".into(), Category::Unknown),
    ];
    for (error, category) in cases {
        assert_eq!(error.class().category, category, "{error:?}");
        assert_eq!(of_chain(&*error), error.class(), "{error:?}");
    }
}

#[test]
fn a_chain_without_end_has_an_end() {
    static LOOP: Endless = Endless;
    #[derive(Debug)]
    struct Endless;
    impl fmt::Display for Endless {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("endless")
        }
    }
    impl Error for Endless {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&LOOP)
        }
    }
    assert_eq!(of_chain(&LOOP).category, Category::Unknown);
}

#[test]
fn pipelines_take_boxed_errors_and_those_that_cannot_be() {
    let pipeline = Pipeline::builder("boxed").build().unwrap();
    let boxed = pipeline.call(|| Err::<(), Box<dyn Error>>(reset().into())).unwrap_err();
    assert_eq!(boxed.class().category, Category::Network);
    assert_eq!(pipeline.call(|| Ok::<_, Infallible>(1)).unwrap(), 1);
}
