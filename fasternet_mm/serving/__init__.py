"""A trained model for people and programs elsewhere: what they send is checked before it is read."""
