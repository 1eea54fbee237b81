//! What the kernel knows of this process, under the names that Prometheus'
//! client libraries use, read when it is asked for.

use std::fmt::Write as _;
use std::fs;

/// Ticks of the clock in a second, which Linux shows to every program.
const TICKS: f64 = 100.0;

/// Appends the metrics; what the system does not tell is left out.
pub(super) fn render(text: &mut String) {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let stat = Stat::parse(&read("/proc/self/stat"));
    let status = read("/proc/self/status");
    let limits = read("/proc/self/limits");
    let boot = field(&read("/proc/stat"), "btime ");
    let descriptors = fs::read_dir("/proc/self/fd").ok().map(Iterator::count);
    let mut put = |name: &str, kind: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            let name = format!("istio_agent_process_{name}");
            // Writing to a String cannot fail.
            writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}").ok();
        }
    };
    let cpu = stat.as_ref().map(|stat| stat.cpu);
    put("cpu_seconds_total", "counter", "CPU time of user and system in seconds.", cpu);
    let limit = |name| limit(&limits, name);
    put("max_fds", "gauge", "Most file descriptors that may be open.", limit("Max open files"));
    // The one that reads the directory is not the process' own.
    let open = descriptors.map(|count| count.saturating_sub(1) as f64);
    put("open_fds", "gauge", "File descriptors that are open.", open);
    let bytes = |name| field(&status, name).map(|kilobytes| kilobytes * 1024.0);
    put("resident_memory_bytes", "gauge", "Resident memory in bytes.", bytes("VmRSS:"));
    let start = stat.zip(boot).map(|(stat, boot)| boot + stat.start);
    put("start_time_seconds", "gauge", "Start of the process in seconds since 1970.", start);
    put("virtual_memory_bytes", "gauge", "Virtual memory in bytes.", bytes("VmSize:"));
    let most = limit("Max address space");
    put("virtual_memory_max_bytes", "gauge", "Most virtual memory in bytes; -1 without a limit.", most);
}

/// What `/proc/self/stat` tells, in seconds.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu: f64,
    /// Since the start of the machine.
    start: f64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The name of the program, in parentheses, may hold anything.
        let words: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let ticks = |at: usize| words.get(at)?.parse::<f64>().ok();
        Some(Self { cpu: (ticks(11)? + ticks(12)?) / TICKS, start: ticks(19)? / TICKS })
    }
}

/// The number after a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

/// The soft limit of that name.
fn limit(text: &str, name: &str) -> Option<f64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    match value.split_ascii_whitespace().next()? {
        "unlimited" => Some(-1.0),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 3 0 4200 99 88";
        assert_eq!(Stat::parse(stat), Some(Stat { cpu: 2.0, start: 42.0 }));
        assert_eq!(Stat::parse("7 (a"), None);
        assert_eq!(field("VmSize:\t  12 kB\nVmRSS:\t 34 kB\n", "VmRSS:"), Some(34.0));
        let limits = "Max open files            1024                 4096                 files\n\
                      Max address space         unlimited            unlimited            bytes\n";
        assert_eq!(
            (limit(limits, "Max open files"), limit(limits, "Max address space")),
            (Some(1024.0), Some(-1.0))
        );
    }

    #[test]
    fn tells_of_this_process() {
        let mut text = String::new();
        render(&mut text);
        let value = |name: &str| {
            let line =
                text.lines().find_map(|line| line.strip_prefix(&format!("istio_agent_process_{name} ")));
            line.unwrap_or_else(|| panic!("{name} in\n{text}")).parse::<f64>().unwrap()
        };
        assert!(value("resident_memory_bytes") > 1e6 && value("open_fds") >= 3.0 && value("max_fds") > 3.0);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let age = now - value("start_time_seconds");
        assert!((-60.0..86400.0).contains(&age), "{age}");
        assert!(text.contains("# TYPE istio_agent_process_cpu_seconds_total counter\n"));
    }
}
