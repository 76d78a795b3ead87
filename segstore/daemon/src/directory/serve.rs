//! Serves this daemon's directory to the others.

use std::pin::Pin;
use std::sync::Arc;

use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};

use super::wire::{Answer, Outcome, Question, WatchFrom, Watched};
use super::{Directory, DirectoryError};
use crate::peers::rpc::directory_server::{Directory as Service, DirectoryServer};

pub(crate) struct Served(Arc<dyn Directory>);

/// The service over `directory`.
pub(crate) fn service(directory: Arc<dyn Directory>) -> DirectoryServer<Served> {
    DirectoryServer::new(Served(directory)).max_decoding_message_size(usize::MAX)
}

impl Served {
    async fn answer(&self, question: Question) -> Result<Answer, DirectoryError> {
        let directory = &self.0;
        Ok(match question {
            Question::Read(key) => Answer::Entry(directory.read(&key).await?),
            Question::List(prefix) => Answer::Listing(directory.list(&prefix).await?),
            Question::Swap { key, expected, new } => {
                Answer::Swapped(directory.compare_swap(&key, expected, new).await?)
            }
            Question::Grant(time) => Answer::Granted(directory.grant(time).await?),
            Question::KeepAlive(lease) => directory.keep_alive(lease).await.map(|()| Answer::Done)?,
            Question::End(lease) => directory.end(lease).await.map(|()| Answer::Done)?,
        })
    }
}

#[tonic::async_trait]
impl Service for Served {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<Watched, Status>> + Send>>;

    async fn ask(&self, request: Request<Question>) -> Result<Response<Outcome>, Status> {
        Ok(Response::new(Outcome(self.answer(request.into_inner()).await)))
    }

    async fn watch(&self, request: Request<WatchFrom>) -> Result<Response<Self::WatchStream>, Status> {
        let WatchFrom { prefix, after } = request.into_inner();
        let stream: Self::WatchStream = match self.0.watch(&prefix, after).await {
            Ok(watch) => {
                let changes = ReceiverStream::new(watch).map(Watched::Changed);
                Box::pin(tokio_stream::once(Watched::Begun).chain(changes).map(Ok))
            }
            Err(error) => Box::pin(tokio_stream::once(Ok(Watched::Failed(error)))),
        };
        Ok(Response::new(stream))
    }
}
