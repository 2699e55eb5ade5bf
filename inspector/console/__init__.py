"""The operator's page: a web server in front of stations, which it knows by their messages."""
