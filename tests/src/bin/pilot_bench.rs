//! `pilot_bench`: measures translation and counts what it allocates.

use std::alloc::{GlobalAlloc, Layout, System};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Parser;
use istio_tests::bench::pilot::{generate, herd, scale};

/// Measures the control plane.
#[derive(Debug, Parser)]
#[command(name = "pilot_bench", version, about)]
enum Cli {
    /// Translation of the inputs of Istio's own benchmarks.
    Generate {
        /// Only cases with this name.
        #[arg(long)]
        only: Option<String>,
    },
    /// Many services, many proxies, many changes of endpoints.
    Scale(scale::Options),
    /// Many proxies that come at once.
    Herd(herd::Options),
}

static ALLOCATED: AtomicU64 = AtomicU64::new(0);

/// The system's allocator, which counts bytes.
struct Counting;

// SAFETY: every call goes to the system's allocator with the same arguments.
#[expect(unsafe_code, reason = "an allocator cannot be written otherwise")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATED.fetch_add(size.saturating_sub(layout.size()) as u64, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn main() -> ExitCode {
    let result = match Cli::parse() {
        Cli::Generate { only } => generate::run(only.as_deref(), || ALLOCATED.load(Ordering::Relaxed)),
        Cli::Scale(options) => scale::run(&options),
        Cli::Herd(options) => herd::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pilot_bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
