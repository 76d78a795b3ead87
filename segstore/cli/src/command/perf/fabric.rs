//! `segctl perf move`: the fabric between this node and another, in perftest's columns.

use segstore::Session;
use segstore_bench::fabric::{self, Bandwidth, Between, Latency};

use super::Report;
use crate::exit::Failure;
use crate::output::{line, progress, table};

const NAME: &str = "the fabric to another node";
const LATENCY: [&str; 9] = [
    "#bytes",
    "#iterations",
    "t_min[usec]",
    "t_max[usec]",
    "t_typical[usec]",
    "t_avg[usec]",
    "t_stdev[usec]",
    "99% percentile[usec]",
    "99.9% percentile[usec]",
];
const BANDWIDTH: [&str; 5] = ["#bytes", "#iterations", "BW peak[MB/sec]", "BW average[MB/sec]", "MsgRate[Mpps]"];

const EXPLANATION: &str = "
A latency is from posting an operation until it has completed: compare a write with twice what ib_write_lat says, which halves a round
trip, and a read with ib_read_lat. MB are 2^20 bytes, as perftest counts them.
";

pub(super) fn measure(report: &mut Report, session: &Session) -> Result<(), Failure> {
    let bar = progress::steps(fabric::STEPS as u64);
    bar.set_message(NAME);
    let measured = fabric::measure(session, || bar.inc(1));
    bar.finish_and_clear();
    report.fabric = report.one(NAME, measured, print)?;
    Ok(())
}

fn print(between: &Between) {
    let Between { from, to, provider, device, latency, bandwidth } = between;
    let device = device.as_ref().map_or_else(String::new, |device| format!(" ({device})"));
    line(format_args!("From node {from} to node {to} over {provider}{device}"));
    for (operation, tool) in [("write", "ib_write_lat"), ("read", "ib_read_lat")] {
        line(format_args!("\nLatency of a {operation} (beside {tool})"));
        let rows = latency.iter().filter(|row| row.operation == operation);
        table::print_as_named(&LATENCY, rows.map(latency_cells).collect());
    }
    for (operation, tool) in [("write", "ib_write_bw"), ("read", "ib_read_bw")] {
        let rows: Vec<_> = bandwidth.iter().filter(|row| row.operation == operation).collect();
        let in_flight = rows.first().map_or(0, |row| row.in_flight);
        line(format_args!("\nBandwidth of {in_flight} {operation}s in flight (beside {tool} -t {in_flight})"));
        table::print_as_named(&BANDWIDTH, rows.into_iter().map(bandwidth_cells).collect());
    }
    line(EXPLANATION);
}

fn latency_cells(row: &Latency) -> Vec<String> {
    let times = [
        row.t_min_usec,
        row.t_max_usec,
        row.t_typical_usec,
        row.t_avg_usec,
        row.t_stdev_usec,
        row.percentile_99_usec,
        row.percentile_99_9_usec,
    ];
    let numbers = [row.bytes, row.iterations].map(|number| number.to_string());
    numbers.into_iter().chain(times.map(|usec| format!("{usec:.2}"))).collect()
}

fn bandwidth_cells(row: &Bandwidth) -> Vec<String> {
    vec![
        row.bytes.to_string(),
        row.iterations.to_string(),
        format!("{:.2}", row.peak_mib_per_sec),
        format!("{:.2}", row.average_mib_per_sec),
        format!("{:.6}", row.message_rate_mpps),
    ]
}
