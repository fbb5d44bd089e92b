"""digitnet past one machine: Ray Serve for crowds, Ray Data for folders of pictures.

Optional, with requirements of its own (deploy/requirements.txt). Uses Recognizer as it is; nothing in digitnet/ or in the
page knows of this. docs/scale.md says when it pays.
"""
