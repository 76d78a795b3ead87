//! Messages between daemons as JSON.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Encodes `T`, decodes `U`.
#[derive(Debug)]
pub(crate) struct Json<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Json<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

/// One direction.
#[derive(Debug)]
pub(crate) struct Half<T>(PhantomData<T>);

impl<T, U> Codec for Json<T, U>
where
    T: Serialize + Send + 'static,
    U: DeserializeOwned + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = Half<T>;
    type Decoder = Half<U>;

    fn encoder(&mut self) -> Half<T> {
        Half(PhantomData)
    }

    fn decoder(&mut self) -> Half<U> {
        Half(PhantomData)
    }
}

impl<T: Serialize> Encoder for Half<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        use tonic::codegen::Bytes;
        let json = serde_json::to_vec(&item).map_err(|error| Status::internal(error.to_string()))?;
        bytes::BufMut::put(buffer, Bytes::from(json));
        Ok(())
    }
}

impl<T: DeserializeOwned> Decoder for Half<T> {
    type Item = T;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<T>, Status> {
        use bytes::Buf;
        if !buffer.has_remaining() {
            return Ok(None);
        }
        let item = serde_json::from_reader(buffer.reader());
        item.map(Some).map_err(|error| Status::invalid_argument(format!("a message that makes no sense: {error}")))
    }
}
