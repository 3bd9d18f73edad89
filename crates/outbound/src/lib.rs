//! Internet: the one guarded HTTP client, and the transfer engine on top of it.
