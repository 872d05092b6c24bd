"""A server that sends parameters of its choosing (threat models F–H), and how to notice it."""
