//! The services between daemons: gRPC with JSON messages, so that one form of a message serves everywhere.

use tonic_build::manual::{Builder, Method, Service};

const CODEC: &str = "crate::peers::codec::Json";

fn main() {
    let call = Method::builder()
        .name("call")
        .route_name("Call")
        .input_type("crate::peers::server::Incoming")
        .output_type("crate::peers::server::Outcome")
        .codec_path(CODEC)
        .build();
    let ask = Method::builder()
        .name("ask")
        .route_name("Ask")
        .input_type("crate::directory::wire::Question")
        .output_type("crate::directory::wire::Outcome")
        .codec_path(CODEC)
        .build();
    let watch = Method::builder()
        .name("watch")
        .route_name("Watch")
        .input_type("crate::directory::wire::WatchFrom")
        .output_type("crate::directory::wire::Watched")
        .codec_path(CODEC)
        .server_streaming()
        .build();
    let peer = Service::builder().name("Peer").package("segstore.v1").method(call).build();
    let directory = Service::builder().name("Directory").package("segstore.v1").method(ask).method(watch).build();
    Builder::new().compile(&[peer, directory]);
}
