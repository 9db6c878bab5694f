//! Reads from replicas, one of which is slow now and then: asked again beside it, the slow ones disappear.
//! `cargo run -p resilience-core --example hedged_reads --features tokio`

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use resilience_core::{Attempt, CallOptions, Hedge, ManualClock, Pipeline, Retry};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What is slow, for a read.
const SLOW: Duration = Duration::from_millis(20);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let time = ManualClock::new();
    let replicas = [replica(Some(time.clone()))?, replica(None)?];

    let hedge = Hedge::builder().after(SLOW).build()?;
    let reads = Pipeline::builder("reads")
        .timeout(Duration::from_secs(10))
        .retry(Retry::default())
        .hedge(hedge.clone())
        .clock(time.clock()) // `Clock::tokio()` in earnest
        .build()?;

    // Each run of an attempt asks the next replica.
    let asked = AtomicU32::new(0);
    let row = reads
        .call_async_with(CallOptions::new().operation("get"), |attempt: Attempt| {
            asked.fetch_add(1, Ordering::Relaxed);
            read(replicas[attempt.hedge as usize % replicas.len()])
        })
        .await?;

    assert_eq!(row, "a row");
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    let statistics = hedge.statistics();
    assert_eq!((statistics.started, statistics.won), (1, 1));
    println!("read {row:?} from the second replica, when the first had taken {SLOW:?}");
    Ok(())
}

async fn read(from: SocketAddr) -> io::Result<String> {
    let mut connection = tokio::net::TcpStream::connect(from).await?;
    connection.write_all(b"get\n").await?;
    let mut row = String::new();
    connection.read_to_string(&mut row).await?;
    Ok(row)
}

/// A server on a port of its own, for as long as the program runs. One that is `slow` lets time pass and never answers.
fn replica(slow: Option<ManualClock>) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let slow = slow.clone();
            std::thread::spawn(move || answer(connection, slow.as_ref()));
        }
    });
    Ok(address)
}

fn answer(mut connection: TcpStream, slow: Option<&ManualClock>) -> io::Result<()> {
    connection.read_exact(&mut [0; 4])?;
    if let Some(time) = slow {
        time.advance(SLOW);
        // Until the client has hung up.
        return connection.read_exact(&mut [0]);
    }
    connection.write_all(b"a row")
}
