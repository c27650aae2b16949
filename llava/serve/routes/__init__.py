"""The routes by which other programs ask the guard; chats have a folder of their own."""
