//! Where actors live; knows no mail.
