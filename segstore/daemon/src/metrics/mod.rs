//! Metrics for Prometheus, over HTTP: `/metrics`, and `/healthz` for whoever wants to know that the daemon lives.

mod http;
mod text;

pub use http::serve;
