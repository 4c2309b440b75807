//! Dialogues over a real socket, with a desk that plays the node.
